"""Jobs: submit, list, look, change, delete."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, model_validator
from sqlalchemy import Connection

from cnn.base import Items, Spec, spec_error
from cnn.datasets import LOCAL_TYPES
from cnn.spec import TrainingSpec
from server import schemas
from server.bodies import JsonRoute
from server.errors import InvalidRequest, JobNotFound
from server.files import etag_matches
from server.openapi import NOT_MODIFIED, problems
from server.queries import Limit, QueryParameters, Several, Text
from server.services import ServicesOf
from server.wording import quoted
from worker import deletion
from worker.jobs import WEIGHTS, Job, JobStatus, allowed_actions
from worker.store import artifacts, intents, jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)

_JOB_ID = re.compile(r"job_[0-9a-z]{26}")
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]*$"
"""No control characters, line separators or characters that turn the direction of text."""


class JobPatch(Spec):
    """How to call a job, and when to train it; what is left out stays as it is."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=_PRINTABLE)] | None = None
    """For people; need not be unique."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Larger ones are trained first."""
    tags: Annotated[Items[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]], Field(max_length=20)] = ()
    """Labels to find jobs by."""


class JobCreate(JobPatch):
    """What to train, and what to call it."""

    spec: TrainingSpec

    @model_validator(mode="before")
    @classmethod
    def _refuse_paths(cls, sent: object) -> object:
        """Users give names, never paths: a check of the spec would already open the files."""
        match sent:
            case {"spec": {"dataset": {"type": str(kind)}}} if kind in LOCAL_TYPES:
                message = f"expected a dataset by its name, got {kind}, which names files of the server"
                raise spec_error("local_path", "/spec/dataset/type", message, got=kind)
        return sent


CHANGED = problems(400, 404, 408, 413, 415, 422, 503)


class JobsQuery(QueryParameters):
    status: Several[JobStatus] = ()
    """Only jobs of these statuses, separated by commas."""
    name: Text | None = None
    """Only jobs of exactly this name."""
    cursor: Annotated[str, Field(pattern=_JOB_ID.pattern, max_length=30)] | None = None
    """`next_cursor` of the page before."""
    limit: Limit = 50


@router.post("", status_code=201, response_model=schemas.Job, responses=problems(400, 408, 413, 415, 422, 503))
def create_job(body: JobCreate, services: ServicesOf) -> Response:
    """Submit a job. It is stored before the answer is sent; a worker trains it when one is free."""
    with services.database.write() as connection:
        check_initial_weights(connection, body.spec)
        job = jobs.create(connection, spec=body.spec, name=body.name, priority=body.priority, tags=body.tags)
        position = jobs.queue_position(connection, job)
    services.bell.ring(job.id)
    return answer(job, position, status_code=201, headers={"Location": f"/v1/jobs/{job.id}"})


@router.get("", responses=problems(422, 503))
def list_jobs(query: Annotated[JobsQuery, Query()], services: ServicesOf) -> schemas.JobPage:
    """Jobs, newest first. New jobs do not disturb a walk over the pages."""
    with services.database.read() as connection:
        found = jobs.page(
            connection, statuses=query.status, name=query.name, limit=query.limit + 1, before=query.cursor
        )
        page = found[: query.limit]
        data = tuple(represent(job, jobs.queue_position(connection, job)) for job in page)
    has_more = len(found) > query.limit
    return schemas.JobPage(data=data, next_cursor=page[-1].id if has_more else None, has_more=has_more)


@router.get("/{job_id}", response_model=schemas.Job, responses=NOT_MODIFIED | problems(404, 503))
def get_job(job_id: str, request: Request, services: ServicesOf) -> Response:
    """One job. With `If-None-Match` the answer is 304 while nothing has changed."""
    with services.database.read() as connection:
        job = find(connection, job_id)
        position = jobs.queue_position(connection, job)
    response = answer(job, position)
    if etag_matches(request.headers.get("if-none-match"), response.headers["ETag"]):
        return Response(status_code=304, headers={"ETag": response.headers["ETag"]})
    return response


@router.patch("/{job_id}", response_model=schemas.Job, responses=CHANGED)
def change_job(job_id: str, body: JobPatch, services: ServicesOf) -> Response:
    """Change the name, the priority or the tags; the order of the queue follows at once."""
    with services.database.write() as connection:
        find(connection, job_id)
        values = {name: getattr(body, name) for name in body.model_fields_set}
        job = intents.change(connection, job_id, **values)
        position = jobs.queue_position(connection, job)
    return answer(job, position)


@router.delete("/{job_id}", status_code=204, responses=problems(404, 409, 503))
def delete_job(job_id: str, services: ServicesOf) -> None:
    """Delete a job that has ended, with its series, log, checkpoints and artifacts."""
    with services.database.read() as connection:
        find(connection, job_id)
    deletion.delete_job(services.database, services.settings.data_dir, job_id)


def check_initial_weights(connection: Connection, spec: TrainingSpec) -> None:
    """The job that `training.init_from` names must have delivered weights.

    Raises:
        InvalidRequest: there is no such job, or it has none.
    """
    source = spec.training.init_from
    if source is None or artifacts.get(connection, source, WEIGHTS) is not None:
        return
    message = f"expected the id of a job that has {WEIGHTS}, got {quoted(source)}"
    item: schemas.ErrorItem = {
        "pointer": "/spec/training/init_from",
        "code": "no_initial_weights",
        "message": message,
        "got": source,
    }
    raise InvalidRequest(f"{item['pointer']}: {message}", errors=[item])


def find(connection: Connection, job_id: str) -> Job:
    """The job with this id.

    Raises:
        JobNotFound: there is none.
    """
    job = jobs.get(connection, job_id) if _JOB_ID.fullmatch(job_id) else None
    if job is None:
        raise JobNotFound(f"expected the id of a job, got {quoted(job_id)}")
    return job


def answer(
    job: Job, position: int | None, *, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The job as JSON, with an entity tag of exactly these bytes."""
    content = represent(job, position).model_dump_json()
    etag = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
    return Response(content, status_code, {**(headers or {}), "ETag": etag}, "application/json")


def represent(job: Job, position: int | None) -> schemas.Job:
    """The job as clients see it."""
    path = f"/v1/jobs/{job.id}"
    return schemas.Job.model_validate(
        {
            **vars(job),
            "terminal": job.terminal,
            "allowed_actions": allowed_actions(job),
            "dataset": {"id": job.dataset_id, "digest": job.dataset_digest},
            "queue": None if position is None else {"position": position},
            "worker": job.worker_id,
            "error": None if job.error is None else asdict(job.error),
            "links": {
                "self": path,
                **{name: f"{path}/{name}" for name in ("events", "metrics", "logs", "artifacts")},
            },
        }
    )
