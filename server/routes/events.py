"""What happened to a job, or to all jobs: a list, or a stream of server-sent events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from server import schemas
from server.auth import CallerOf
from server.openapi import Responses, problems
from server.queries import Count, Limit, QueryParameters, Several, Text
from server.representation import find
from server.services import ServicesOf
from server.streams import EventStream, global_stream, job_stream, number_new, require_room, wants_stream
from worker.store import event_log, events

router = APIRouter(prefix="/v1", tags=["events"])

STREAMED: Responses = {200: {"content": {EventStream.media_type: {"schema": {"type": "string"}}}}}

LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=2**63)]
"""Id of the last event that arrived, as browsers send it when they connect again; goes before `after`."""


class EventsQuery(QueryParameters):
    after: Count = 0
    """Only events with a larger id."""
    types: Several[Text] = ()
    """Only these types, separated by commas, such as `job.status,job.checkpoint`."""
    limit: Limit = 200
    """For the list alone."""


class AllEventsQuery(QueryParameters):
    after: Count | None = None
    """Only events with a larger number. Without it a list begins with the first event, a stream with the next one."""
    types: Several[Text] = ()
    """Only these types, separated by commas, such as `job.status,job.checkpoint`."""
    limit: Limit = 200
    """For the list alone."""


@router.get("/jobs/{job_id}/events", response_model=schemas.EventPage, responses=STREAMED | problems(404, 422, 503))
def list_events(
    job_id: str,
    query: Annotated[EventsQuery, Query()],
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    last_event_id: LastEventId = None,
) -> Response | schemas.EventPage:
    """A job's events, oldest first. Ids count from 1 without gaps.

    With `Accept: text/event-stream` it is a stream that goes on as things happen, and ends with an `end` event when the
    job has ended.
    """
    after = query.after if last_event_id is None else last_event_id
    with services.database.read() as connection:
        find(connection, job_id, caller)
        if not wants_stream(request):
            found = events.after(connection, job_id, after, query.limit + 1, query.types)
            page, has_more = found[: query.limit], len(found) > query.limit
            return schemas.EventPage(
                data=tuple(map(schemas.Event.model_validate, page)),
                next_cursor=str(page[-1].id) if has_more else None,
                has_more=has_more,
            )
    require_room(services.tailer, caller)
    return EventStream(job_stream(services.database, services.tailer, caller, job_id, after, query.types))


@router.get("/events", response_model=schemas.LoggedEventPage, responses=STREAMED | problems(422, 503))
def list_all_events(
    query: Annotated[AllEventsQuery, Query()],
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    last_event_id: LastEventId = None,
) -> Response | schemas.LoggedEventPage:
    """The events of all jobs in one order: those of each job in its own, and nothing later before what was seen.

    With `Accept: text/event-stream` it is a stream, whose ids are the numbers of the events.
    """
    after = query.after if last_event_id is None else last_event_id
    if wants_stream(request):
        require_room(services.tailer, caller)
        return EventStream(global_stream(services.database, services.tailer, caller, after, query.types))
    number_new(services.database)  # a client finds what its last request has done
    with services.database.read() as connection:
        found = event_log.after(connection, after or 0, query.limit + 1, query.types, caller.only)
    page, has_more = found[: query.limit], len(found) > query.limit
    return schemas.LoggedEventPage(
        data=tuple(map(schemas.LoggedEvent.model_validate, page)),
        next_cursor=str(page[-1].number) if has_more else None,
        has_more=has_more,
    )
