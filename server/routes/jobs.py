"""Jobs: submit, list, look, change, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Header, Query, Request, Response
from pydantic import Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from server import schemas
from server.auth import Caller, CallerOf
from server.bell import Bell
from server.bodies import JsonRoute
from server.files import etag_matches
from server.idempotency import IdempotentRequest
from server.openapi import NOT_MODIFIED, Responses, problems
from server.plan_schemas import Plan
from server.planning import plan_of
from server.queries import Limit, QueryParameters, Several, Text, Time
from server.registered import FILLS_IN_DATASETS
from server.representation import JOB_ID, answer, find, represent, require_match
from server.services import Services, ServicesOf
from server.streams import require_room
from server.submission import TAG, JobCreate, JobPatch, submit
from server.waiting import changed, wait_seconds
from worker import deletion
from worker.jobs import JobStatus
from worker.store import intents, jobs
from worker.store.jobs import JobFilter

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)

CREATED: Responses = {
    200: {
        "description": "The job that was there, with `on_duplicate: reuse`; the plan, with `dry_run`",
        "model": schemas.Job | Plan,
    }
}
CHANGED = problems(400, 404, 408, 412, 413, 415, 422, 503)


class CreateQuery(QueryParameters):
    dry_run: bool = False
    """Check everything, store nothing, and answer with the plan."""


class JobsQuery(QueryParameters):
    status: Several[JobStatus] = ()
    """Only jobs of these statuses, separated by commas."""
    name: Text | None = None
    """Only jobs of exactly this name."""
    tag: Several[Annotated[str, Field(pattern=TAG)]] = ()
    """Only jobs with all of these tags, separated by commas."""
    created_after: Time | None = None
    """Only jobs that were submitted after this time."""
    created_before: Time | None = None
    """Only jobs that were submitted before this time."""
    cursor: Annotated[str, Field(pattern=JOB_ID.pattern, max_length=30)] | None = None
    """`next_cursor` of the page before."""
    limit: Limit = 50


@router.post(
    "",
    status_code=201,
    response_model=schemas.Job,
    responses=CREATED | problems(400, 408, 409, 413, 415, 422, 503),
    dependencies=[FILLS_IN_DATASETS],
)
def create_job(
    body: JobCreate,
    query: Annotated[CreateQuery, Query()],
    request: IdempotentRequest,
    services: ServicesOf,
    caller: CallerOf,
    background: BackgroundTasks,
) -> Response:
    """Submit a job. It is stored before the answer is sent; a worker trains it when one is free.

    With an `Idempotency-Key` the request may be sent again for 24 hours, and gets the same answer.
    """

    def create() -> Response:
        job, is_new = submit(connection, body, caller)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        place = services.queue.place(connection, job)
        return answer(job, place, status_code=201 if is_new else 200, headers=headers)

    if query.dry_run:
        return _dry_run(body, services, caller)
    with services.database.write() as connection:
        response = request.once(connection, create)
    job_id = response.headers["Location"].rpartition("/")[2]
    background.add_task(_ring, services.bell, job_id)  # after the answer, which the bell's thread would hold up
    return response


@router.get("", response_model=schemas.JobPage, responses=problems(422, 503))
def list_jobs(query: Annotated[JobsQuery, Query()], services: ServicesOf, caller: CallerOf) -> Response:
    """Jobs, newest first. New jobs do not disturb a walk over the pages."""
    with services.database.read() as connection:
        wanted = JobFilter(
            owner_id=caller.only,
            statuses=query.status,
            name=query.name,
            tags=query.tag,
            created_after=query.created_after,
            created_before=query.created_before,
        )
        found = jobs.page(connection, wanted, limit=query.limit + 1, before=query.cursor)
        page = found[: query.limit]
        places = services.queue.places(connection, page)
    data = tuple(represent(job, places.get(job.id)) for job in page)
    has_more = len(found) > query.limit
    answered = schemas.JobPage(data=data, next_cursor=page[-1].id if has_more else None, has_more=has_more)
    return Response(answered.model_dump_json(), media_type="application/json")


@router.get("/{job_id}", response_model=schemas.Job, responses=NOT_MODIFIED | problems(404, 503))
async def get_job(
    job_id: str,
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    prefer: Annotated[str | None, Header()] = None,
) -> Response:
    """One job. With `If-None-Match` the answer is 304 while nothing has changed.

    With `Prefer: wait=30` beside it the answer comes when something has changed, or after 30 seconds (at most 60).
    """

    def current() -> Response:
        with services.database.read() as connection:
            job = find(connection, job_id, caller)
            return answer(job, services.queue.place(connection, job))

    known = request.headers.get("if-none-match")
    seconds = wait_seconds(prefer)
    if known and seconds:
        require_room(services.tailer, caller)
        response = await changed(services.tailer, caller, job_id, known, seconds, current)
        applied = {"Preference-Applied": f"wait={seconds:g}"}
    else:
        response = await run_in_threadpool(current)
        applied = {}
    response.headers.update(applied)
    if etag_matches(known, response.headers["ETag"]):
        return Response(status_code=304, headers={"ETag": response.headers["ETag"], **applied})
    return response


@router.patch("/{job_id}", response_model=schemas.Job, responses=CHANGED)
def change_job(job_id: str, body: JobPatch, request: Request, services: ServicesOf, caller: CallerOf) -> Response:
    """Change the name, the priority or the tags; the order of the queue follows at once.

    With `If-Match` only where the job is still as that entity tag names it.
    """
    with services.database.write() as connection:
        _find_match(connection, job_id, request, services, caller)
        values = {name: getattr(body, name) for name in body.model_fields_set}
        job = intents.change(connection, job_id, **values)
        place = services.queue.place(connection, job)
    return answer(job, place)


@router.delete("/{job_id}", status_code=204, responses=problems(404, 409, 412, 503))
def delete_job(job_id: str, request: Request, services: ServicesOf, caller: CallerOf) -> None:
    """Delete a job that has ended, with its series, log, checkpoints and artifacts. `If-Match` as for changes."""
    with services.database.read() as connection:
        _find_match(connection, job_id, request, services, caller)
    deletion.delete_job(services.database, services.settings.data_dir, job_id)


async def _ring(bell: Bell, job_id: str) -> None:
    """Where the answer was sent from: it waits for nothing, so that another thread would only cost time."""
    bell.ring(job_id)


def _dry_run(body: JobCreate, services: Services, caller: Caller) -> Response:
    """Submit and take it back: what would be refused is refused, and what would be written is not."""
    with services.database.write() as connection:
        submit(connection, body, caller)
        connection.rollback()
    with services.database.read() as connection:
        plan = plan_of(connection, body.spec, lease_seconds=services.settings.lease_seconds)
    return Response(plan.model_dump_json(), media_type="application/json")


def _find_match(connection: Connection, job_id: str, request: Request, services: Services, caller: Caller) -> None:
    job = find(connection, job_id, caller)
    require_match(request, answer(job, services.queue.place(connection, job)).headers["ETag"])
