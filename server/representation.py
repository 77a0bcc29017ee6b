"""A job as clients see it, and its entity tag."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict

from fastapi import Request, Response
from sqlalchemy import Connection

from server import schemas
from server.auth import Caller
from server.errors import JobNotFound, PreconditionFailed
from server.wording import quoted
from worker.jobs import Job, allowed_actions
from worker.store import jobs

JOB_ID = re.compile(r"job_[0-9a-z]{26}")


def find(connection: Connection, job_id: str, caller: Caller) -> Job:
    """The job with this id, if it exists for the caller.

    Raises:
        JobNotFound: there is none.
    """
    job = jobs.get(connection, job_id) if JOB_ID.fullmatch(job_id) else None
    if job is None or not caller.sees(job.owner_id):
        raise JobNotFound(f"expected the id of a job, got {quoted(job_id)}")
    return job


def answer(
    job: Job, queue: schemas.Queue | None, *, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The job as JSON, with an entity tag of exactly these bytes."""
    content = represent(job, queue).model_dump_json()
    etag = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
    return Response(content, status_code, {**(headers or {}), "ETag": etag}, "application/json")


def require_match(request: Request, etag: str) -> None:
    """Raise PreconditionFailed where `If-Match` (RFC 9110 §13.1.1) names other entity tags than this one."""
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted.strip() != "*" and etag not in [tag.strip() for tag in wanted.split(",")]:
        raise PreconditionFailed(f"expected the job to be as If-Match names it, got {etag}")


def represent(job: Job, queue: schemas.Queue | None) -> schemas.Job:
    """The job as clients see it."""
    path = f"/v1/jobs/{job.id}"
    return schemas.Job.model_validate(
        {
            **vars(job),
            "terminal": job.terminal,
            "allowed_actions": allowed_actions(job),
            "dataset": {"id": job.dataset_id, "digest": job.dataset_digest},
            "queue": queue,
            "worker": job.worker_id,
            "limits": {"max_runtime_seconds": job.max_runtime_seconds},
            "error": None if job.error is None else asdict(job.error),
            "links": {
                "self": path,
                **{name: f"{path}/{name}" for name in ("attempts", "events", "metrics", "logs", "artifacts")},
            },
        }
    )
