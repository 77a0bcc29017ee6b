"""One action for many jobs, each with a result of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy import Connection

from cnn.base import Items, Spec
from server import schemas
from server.auth import Caller, CallerOf
from server.bodies import JsonRoute
from server.errors import ProblemError
from server.openapi import problems
from server.problems import as_problem, problem_of
from server.representation import find, represent
from server.services import Services, ServicesOf
from worker import deletion
from worker.jobs import InvalidTransition, Job, JobNotFound
from worker.store import intents
from worker.store.quotas import QuotaExceeded

router = APIRouter(prefix="/v1/jobs/batch", tags=["jobs"], route_class=JsonRoute)


class Batch(Spec):
    """What to do, and to which jobs."""

    action: Literal["cancel", "pause", "resume", "retry", "delete"]
    ids: Annotated[Items[Annotated[str, Field(max_length=40)]], Field(min_length=1, max_length=200)]
    mode: Literal["graceful", "now"] = "graceful"
    """For `cancel`: whether the trainer of a running job is asked to stop, or killed."""
    start: Literal["checkpoint", "scratch"] = Field(default="checkpoint", alias="from")
    """For `retry`: the newest checkpoint, or the beginning."""


@router.post("", responses=problems(400, 408, 413, 415, 422, 503))
def act_on_jobs(body: Batch, request: Request, services: ServicesOf, caller: CallerOf) -> schemas.BatchResults:
    """Cancel, pause, resume, retry or delete up to 200 jobs, one after the other.

    What fails for one job changes nothing for the others. Where the database goes away on the way, the answer is 503
    and the first ones are done: repeating the request is harmless.
    """
    return schemas.BatchResults(data=tuple(_result(body, job_id, request, services, caller) for job_id in body.ids))


def _result(body: Batch, job_id: str, request: Request, services: Services, caller: Caller) -> schemas.BatchResult:
    try:
        job, place = _act(body, job_id, services, caller)
    except (ProblemError, InvalidTransition, JobNotFound, QuotaExceeded) as error:
        problem = problem_of(request.scope, as_problem(error))
        return schemas.BatchResult.model_validate(
            {"id": job_id, "status_code": problem["status"], "job": None, "problem": problem}
        )
    if place is not None:
        services.bell.ring(job_id)
    answer = None if job is None else represent(job, place)
    return schemas.BatchResult(id=job_id, status_code=204 if job is None else 202, job=answer, problem=None)


def _act(body: Batch, job_id: str, services: Services, caller: Caller) -> tuple[Job | None, schemas.Queue | None]:
    """The job after the action, and its place in the queue; None when it was deleted."""
    with services.database.write() as connection:
        find(connection, job_id, caller)
        if body.action != "delete":
            job = _ask(connection, body, job_id)
            return job, services.queue.place(connection, job)
    deletion.delete_job(services.database, services.settings.data_dir, job_id)
    return None, None


def _ask(c: Connection, body: Batch, job_id: str) -> Job:
    match body.action:
        case "cancel":
            return intents.request_cancel(c, job_id, body.mode == "now")
        case "pause":
            return intents.request_pause(c, job_id)
        case "resume":
            return intents.resume(c, job_id)
        case _:
            return intents.retry(c, job_id, body.start == "scratch")
