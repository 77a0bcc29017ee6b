"""Jobs as users see them: create, read, list; and `move`, the one function that changes a status."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, insert, or_, select, update

from cnn.spec import TrainingSpec
from worker.jobs import (
    TRANSITIONS,
    Best,
    Intent,
    InvalidTransition,
    Job,
    JobError,
    JobNotFound,
    JobResult,
    JobStatus,
    Progress,
    create_job_id,
)
from worker.store import events
from worker.store.tables import jobs

CLAIM_ORDER = jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id


def create(
    c: Connection, *, spec: TrainingSpec, name: str | None, priority: int = 0, tags: tuple[str, ...] = ()
) -> Job:
    """Write a new queued job. Larger priorities are claimed first."""
    now = datetime.now(UTC)
    resolved = spec.model_dump(mode="json")
    job_id = create_job_id()
    c.execute(
        insert(jobs).values(
            id=job_id,
            name=name,
            tags=list(tags),
            priority=priority,
            status=JobStatus.QUEUED,
            spec=resolved,
            spec_digest=spec_digest(resolved),
            dataset_id=spec.dataset.type,
            wanted_device=spec.training.device,
            monitor=_monitor(spec),
            latest_metrics={},
            cancel_now=False,
            attempt=0,
            first_attempt=1,
            token=0,
            heartbeat=0,
            fruitless_attempts=0,
            checkpoint_step=0,
            last_event_id=0,
            created_at=now,
            queued_at=now,
            updated_at=now,
        )
    )
    events.append(c, job_id, "job.status", {"from": None, "to": JobStatus.QUEUED, "reason": "created"}, attempt=0)
    return existing(c, job_id)


def get(c: Connection, job_id: str) -> Job | None:
    """The job with this id."""
    row = c.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    return None if row is None else job_from(row)


def page(
    c: Connection,
    *,
    statuses: Sequence[JobStatus] = (),
    name: str | None = None,
    limit: int,
    before: str | None = None,
) -> list[Job]:
    """The `limit` newest jobs with an id below `before`, of these statuses (any when none is named) and this name."""
    query = select(jobs)
    if statuses:
        query = query.where(jobs.c.status.in_(statuses))
    if name is not None:
        query = query.where(jobs.c.name == name)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [job_from(row) for row in c.execute(query.order_by(jobs.c.id.desc()).limit(limit))]


def queue_position(c: Connection, job: Job) -> int | None:
    """Place of a queued job in the order of claims, 1 for the next; None for a job that is not queued."""
    if job.status != JobStatus.QUEUED:
        return None
    ahead = or_(
        jobs.c.priority > job.priority,
        and_(jobs.c.priority == job.priority, jobs.c.created_at < job.created_at),
        and_(jobs.c.priority == job.priority, jobs.c.created_at == job.created_at, jobs.c.id < job.id),
    )
    query = select(func.count()).select_from(jobs).where(jobs.c.status == JobStatus.QUEUED, ahead)
    return int(c.execute(query).scalar_one()) + 1


def claimable_ids(c: Connection, *, limit: int) -> list[str]:
    """The first jobs that could be claimed now, in the order of claims."""
    query = select(jobs.c.id).where(claimable()).order_by(*CLAIM_ORDER).limit(limit)
    return list(c.execute(query).scalars())


def claimable() -> Any:
    """SQL condition of jobs that wait and are not held back."""
    ready = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= datetime.now(UTC))
    return and_(jobs.c.status == JobStatus.QUEUED, ready)


def lock(c: Connection, job_id: str) -> Job:
    """The job, which nobody else can change until the transaction ends.

    Raises:
        JobNotFound: there is no such job.
    """
    job = locked(c, select(jobs).where(jobs.c.id == job_id))
    if job is None:
        raise JobNotFound(job_id)
    return job


def locked(c: Connection, query: Select[Any]) -> Job | None:
    """The job that a query over the whole row finds, locked (on SQLite the transaction has locked everything)."""
    row = c.execute(query.with_for_update()).one_or_none()
    return None if row is None else job_from(row)


def move(c: Connection, job: Job, to: JobStatus, *, reason: str, **values: Any) -> Job:
    """Change the status, with its event, by compare-and-set on status and token; `values` are further columns to set.

    Raises:
        InvalidTransition: there is no such edge.
    """
    if to not in TRANSITIONS[job.status]:
        raise InvalidTransition(job, to)
    now = datetime.now(UTC)
    columns: dict[str, Any] = {
        "status": to,
        "intent": None,
        "cancel_now": False,
        "error": None,
        "phase": None,
        "not_before": None,
        "finished_at": now if to.terminal else None,
        **({"queued_at": now} if to == JobStatus.QUEUED else {}),
        **values,
    }
    c.execute(
        update(jobs)
        .where(jobs.c.id == job.id, jobs.c.status == job.status, jobs.c.token == job.token)
        .values(columns)
        .returning(jobs.c.id)
    ).one()
    moved = existing(c, job.id)
    data = {"from": job.status, "to": to, "reason": reason, "worker": moved.worker_id}
    events.append(c, job.id, "job.status", data, moved.attempt)
    return existing(c, job.id)


def job_from(row: Row[Any]) -> Job:
    """The record of a row of `jobs`."""
    columns = row._asdict()
    places = [columns.pop(name) for name in ("epoch", "epochs", "step", "num_steps", "eta_at", "progress_at")]
    epoch, epochs, step, num_steps, eta_at, progress_at = places
    del columns["wanted_device"], columns["monitor"]
    error = columns["error"]
    columns |= {
        "tags": tuple(columns["tags"]),
        "status": JobStatus(columns["status"]),
        "intent": columns["intent"] and Intent(columns["intent"]),
        "progress": progress_at
        and Progress(epoch=epoch, epochs=epochs, step=step, num_steps=num_steps, eta_at=eta_at, updated_at=progress_at),
        "best": columns["best"] and Best(**columns["best"]),
        "result": columns["result"] and JobResult(**columns["result"]),
        "error": error and JobError(**{**error, "log_tail": tuple(error["log_tail"])}),
    }
    return Job(**columns)


def spec_digest(resolved: dict[str, Any]) -> str:
    """`sha256:…` of a resolved spec's canonical JSON: keys sorted, no spaces, ASCII."""
    canonical = json.dumps(resolved, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def existing(c: Connection, job_id: str) -> Job:
    """The job with this id, which is known to be there."""
    return job_from(c.execute(select(jobs).where(jobs.c.id == job_id)).one())


def _monitor(spec: TrainingSpec) -> str | None:
    """The series that decides which weights are best; None when the last ones are delivered."""
    if spec.early_stopping is not None:
        return spec.early_stopping.monitor
    return "val_loss" if spec.split.val_fraction > 0 else None
