"""What users ask of a job that is there: cancel, pause, resume, retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy import Connection

from cnn.base import Spec
from server import schemas
from server.auth import Caller, CallerOf
from server.bodies import JsonRoute
from server.openapi import problems
from server.representation import answer, find
from server.services import Services, ServicesOf
from worker.jobs import Job
from worker.store import intents

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"], route_class=JsonRoute)

ASKED = problems(404, 409, 503)
ASKED_WITH_BODY = problems(400, 404, 408, 409, 413, 415, 422, 503)


class Cancellation(Spec):
    """How to cancel."""

    mode: Literal["graceful", "now"] = "graceful"
    """Whether the trainer of a running job is asked to stop, or killed."""


class Retry(Spec):
    """Where to continue."""

    start: Literal["checkpoint", "scratch"] = Field(default="checkpoint", alias="from")
    """The newest checkpoint, or the beginning."""


@router.post("/cancel", status_code=202, response_model=schemas.Job, responses=ASKED_WITH_BODY)
def cancel_job(job_id: str, services: ServicesOf, caller: CallerOf, body: Cancellation | None = None) -> Response:
    """Cancel a job: a waiting one at once, a running one when its trainer has stopped. Repeating it is harmless."""
    now = body is not None and body.mode == "now"
    return _ask(services, caller, job_id, lambda c: intents.request_cancel(c, job_id, now))


@router.post("/pause", status_code=202, response_model=schemas.Job, responses=ASKED)
def pause_job(job_id: str, services: ServicesOf, caller: CallerOf) -> Response:
    """Pause a job: a waiting one at once, a running one at its next checkpoint. Repeating it is harmless."""
    return _ask(services, caller, job_id, lambda c: intents.request_pause(c, job_id))


@router.post("/resume", status_code=202, response_model=schemas.Job, responses=ASKED)
def resume_job(job_id: str, services: ServicesOf, caller: CallerOf) -> Response:
    """Queue a paused job; it ends as if it had never been paused. Repeating it is harmless."""
    return _ask(services, caller, job_id, lambda c: intents.resume(c, job_id))


@router.post("/retry", status_code=202, response_model=schemas.Job, responses=ASKED_WITH_BODY)
def retry_job(job_id: str, services: ServicesOf, caller: CallerOf, body: Retry | None = None) -> Response:
    """Queue a failed or cancelled job again, under its id. Repeating it is harmless."""
    scratch = body is not None and body.start == "scratch"
    return _ask(services, caller, job_id, lambda c: intents.retry(c, job_id, scratch))


def _ask(services: Services, caller: Caller, job_id: str, request: Callable[[Connection], Job]) -> Response:
    with services.database.write() as connection:
        find(connection, job_id, caller)
        job = request(connection)
        place = services.queue.place(connection, job)
    if place is not None:
        services.bell.ring(job_id)
    return answer(job, place, status_code=202)
