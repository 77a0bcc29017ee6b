"""What happened to a job, as a list."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from server import schemas
from server.openapi import problems
from server.queries import Count, Limit, QueryParameters, Several, Text
from server.routes.jobs import find
from server.services import ServicesOf
from worker.store import events

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])


class EventsQuery(QueryParameters):
    after: Count = 0
    """Only events with a larger id."""
    types: Several[Text] = ()
    """Only these types, separated by commas, such as `job.status,job.checkpoint`."""
    limit: Limit = 200


@router.get("", responses=problems(404, 422, 503))
def list_events(job_id: str, query: Annotated[EventsQuery, Query()], services: ServicesOf) -> schemas.EventPage:
    """A job's events, oldest first. Ids count from 1 without gaps."""
    with services.database.read() as connection:
        find(connection, job_id)
        found = events.after(connection, job_id, query.after, query.limit + 1, query.types)
    page, has_more = found[: query.limit], len(found) > query.limit
    return schemas.EventPage(
        data=tuple(map(schemas.Event.model_validate, page)),
        next_cursor=str(page[-1].id) if has_more else None,
        has_more=has_more,
    )
