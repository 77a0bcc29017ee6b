"""Jobs as users see them: create, read, list; and `move`, the one function that changes a status."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, false, func, insert, not_, or_, select, union_all, update
from ulid import ULID

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
    OnDomainChange,
    PauseReason,
    Progress,
    create_job_id,
)
from worker.store import events
from worker.store.tables import job_tags, jobs

CLOCK_SHIFT = timedelta(minutes=5)
UNTRIED: dict[str, Any] = {
    "latest_metrics": {},
    "cancel_now": False,
    "attempt": 0,
    "first_attempt": 1,
    "token": 0,
    "heartbeat": 0,
    "fruitless_attempts": 0,
    "checkpoint_step": 0,
    "runtime_seconds": 0.0,
    "last_event_id": 1,
}
"""The columns of a job that nobody has worked on yet: its only event is that it was created."""
_COLUMNS = tuple(sys.intern(str(column.name)) for column in jobs.c)
"""As plain strings: with SQLAlchemy's own ones, making a `Job` of a row takes three times as long."""
_INSERT = insert(jobs).returning(*jobs.c)
_INSERT_TAG = insert(job_tags)
_BY_ID = select(jobs).where(jobs.c.id == bindparam("job_id"))
"""Made once: for one row, making a statement takes longer than running it."""


def create(
    c: Connection,
    *,
    spec: TrainingSpec,
    name: str | None,
    priority: int = 0,
    tags: tuple[str, ...] = (),
    owner_id: str | None = None,
    reserved_bytes: int = 0,
    max_runtime_seconds: int | None = None,
    on_domain_change: OnDomainChange = OnDomainChange.WAIT,
) -> Job:
    """Write a new queued job. Larger priorities are claimed first.

    Args:
        owner_id: the API key that the job belongs to.
        reserved_bytes: what its artifacts count in the key's quota until it has ended.
        max_runtime_seconds: how long its attempts may run in total.
    """
    now = datetime.now(UTC)
    job_id = create_job_id()
    columns = {
        "id": job_id,
        "owner_id": owner_id,
        "name": name,
        "tags": list(tags),
        "priority": priority,
        "status": JobStatus.QUEUED,
        "on_domain_change": on_domain_change,
        "max_runtime_seconds": max_runtime_seconds,
        "reserved_bytes": reserved_bytes,
        "created_at": now,
        "queued_at": now,
        "updated_at": now,
    }
    row = c.execute(_INSERT, _of_spec(spec) | UNTRIED | columns).one()
    add_tags(c, job_id, tags)
    events.begin(c, job_id, now)
    return job_from(row)


def _of_spec(spec: TrainingSpec) -> dict[str, Any]:
    """The columns of a job that its spec decides."""
    resolved = spec.model_dump(mode="json")
    return {
        "spec": resolved,
        "spec_digest": spec_digest(resolved),
        "dataset_id": spec.dataset.info.name,
        "dataset_digest": spec.dataset.known_digest,
        "wanted_device": spec.training.device,
        "monitor": _monitor(spec),
    }


def get(c: Connection, job_id: str) -> Job | None:
    """The job with this id."""
    row = c.execute(_BY_ID, {"job_id": job_id}).one_or_none()
    return None if row is None else job_from(row)


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs are meant; what is left out does not matter."""

    owner_id: str | None = None
    statuses: Sequence[JobStatus] = ()
    name: str | None = None
    tags: Sequence[str] = ()
    """All of them."""
    created_after: datetime | None = None
    created_before: datetime | None = None

    def newest(self, status: JobStatus | None, *, limit: int, before: str | None) -> Select[tuple[str]]:
        """Ids of the newest such jobs of one status (of any for None), from indexes alone; newest first."""
        tagged = [(tag, job_tags.alias()) for tag in dict.fromkeys(self.tags)]
        job_id = tagged[0][1].c.job_id if tagged else jobs.c.id
        terms = [term for tag, rows in tagged for term in (rows.c.tag == tag, rows.c.job_id == jobs.c.id)]
        if status is not None:
            terms.append(jobs.c.status == status)
        if self.owner_id is not None:
            terms.append(jobs.c.owner_id == self.owner_id)
        if self.name is not None:
            terms.append(jobs.c.name == self.name)
        # Each index begins at its own bounds: PostgreSQL concludes none of them from those of another.
        ids = [jobs.c.id, *(rows.c.job_id for _, rows in tagged)]
        # Ids sort by time, and have an index; a clock that was put right shifts them against `created_at`.
        if self.created_after is not None:
            first = _id_at(self.created_after - CLOCK_SHIFT)
            terms += [jobs.c.created_at > self.created_after, *(column > first for column in ids)]
        if self.created_before is not None:
            end = _id_at(self.created_before + CLOCK_SHIFT)
            terms += [jobs.c.created_at < self.created_before, *(column < end for column in ids)]
        if before is not None:
            terms += [column < before for column in ids]
        return select(job_id.label("id")).where(*terms).order_by(job_id.desc()).limit(limit).correlate(None)


def page(c: Connection, wanted: JobFilter = JobFilter(), *, limit: int, before: str | None = None) -> list[Job]:
    """The `limit` newest jobs that are wanted, of those with an id below `before`."""
    # Each status by itself: no index has the jobs of several in the order of ids.
    parts = [wanted.newest(status, limit=limit, before=before) for status in wanted.statuses or (None,)]
    ids = parts[0] if len(parts) == 1 else union_all(*(select(part.subquery().c.id) for part in parts))
    query = select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id.desc()).limit(limit)
    return [job_from(row) for row in c.execute(query)]


def add_tags(c: Connection, job_id: str, tags: Sequence[str]) -> None:
    """Let the job be found by these tags."""
    if tags:
        c.execute(_INSERT_TAG, [{"job_id": job_id, "tag": tag} for tag in dict.fromkeys(tags)])


def duplicate(c: Connection, spec: TrainingSpec, owner_id: str | None = None) -> Job | None:
    """The oldest job of this resolved spec that has succeeded or still can; one that has succeeded comes first.

    Who looks for the same spec at the same time waits until the transaction ends.

    Args:
        owner_id: only this owner's jobs count; all when it is None.
    """
    digest = spec_digest(spec.model_dump(mode="json"))
    if c.dialect.name == "postgresql":
        c.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(digest, 0))))
    lost = or_(jobs.c.status.in_([JobStatus.FAILED, JobStatus.CANCELLED]), jobs.c.intent == Intent.CANCEL)
    query = select(jobs).where(jobs.c.spec_digest == digest, not_(func.coalesce(lost, false())))
    if owner_id is not None:
        query = query.where(jobs.c.owner_id == owner_id)
    row = c.execute(query.order_by(jobs.c.status != JobStatus.SUCCEEDED, jobs.c.id).limit(1)).one_or_none()
    return None if row is None else job_from(row)


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
        "pause_reason": PauseReason.USER if to == JobStatus.PAUSED else None,
        "not_before": None,
        "finished_at": now if to.terminal else None,
        **({"queued_at": now} if to == JobStatus.QUEUED else {}),
        **values,
    }
    moved = c.execute(
        update(jobs)
        .where(jobs.c.id == job.id, jobs.c.status == job.status, jobs.c.token == job.token)
        .values(columns)
        .returning(jobs.c.worker_id, jobs.c.attempt)
    ).one()
    data = {"from": job.status, "to": to, "reason": reason, "worker": moved.worker_id}
    events.append(c, job.id, "job.status", data, moved.attempt)
    return existing(c, job.id)


def job_from(row: Row[Any]) -> Job:
    """The record of a row of `jobs`."""
    columns: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    places = [columns.pop(name) for name in ("epoch", "epochs", "step", "num_steps", "eta_at", "progress_at")]
    epoch, epochs, step, num_steps, eta_at, progress_at = places
    del columns["wanted_device"], columns["monitor"]
    error = columns["error"]
    columns |= {
        "tags": tuple(columns["tags"]),
        "status": JobStatus(columns["status"]),
        "intent": columns["intent"] and Intent(columns["intent"]),
        "on_domain_change": OnDomainChange(columns["on_domain_change"]),
        "pause_reason": columns["pause_reason"] and PauseReason(columns["pause_reason"]),
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
    return job_from(c.execute(_BY_ID, {"job_id": job_id}).one())


def _id_at(time: datetime) -> str:
    """Below every id that was made at this millisecond or later, not below earlier ones."""
    return f"job_{str(ULID.from_datetime(time))[:10].lower()}"


def _monitor(spec: TrainingSpec) -> str | None:
    """The series that decides which weights are best; None when the last ones are delivered."""
    if spec.early_stopping is not None:
        return spec.early_stopping.monitor
    return "val_loss" if spec.split.val_fraction > 0 else None
