"""Jobs as users see them: create, read, list; and `move`, the one function that changes a status."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    cast,
    false,
    func,
    insert,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)
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
from worker.store import events, quotas
from worker.store.tables import Timestamp, jobs

CLAIM_ORDER = jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id
IS_QUEUED = jobs.c.status == literal_column("'queued'")
"""Written out, not as a parameter: only so does the index of the queue fit, which holds nothing else."""
CLOCK_SHIFT = timedelta(minutes=5)
ROOM_DELAY = timedelta(seconds=5)
"""Where a quota is full and not the disk, nobody sees it: without a wait such a job would be tried all the time."""


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
    resolved = spec.model_dump(mode="json")
    job_id = create_job_id()
    c.execute(
        insert(jobs).values(
            id=job_id,
            owner_id=owner_id,
            name=name,
            tags=list(tags),
            priority=priority,
            status=JobStatus.QUEUED,
            spec=resolved,
            spec_digest=spec_digest(resolved),
            dataset_id=spec.dataset.info.name,
            dataset_digest=spec.dataset.known_digest,
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
            on_domain_change=on_domain_change,
            max_runtime_seconds=max_runtime_seconds,
            runtime_seconds=0.0,
            reserved_bytes=reserved_bytes,
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

    def condition(self) -> ColumnElement[bool]:
        """The filter in SQL."""
        terms: list[ColumnElement[bool]] = [jobs.c.status.in_(self.statuses)] if self.statuses else []
        if self.owner_id is not None:
            terms.append(jobs.c.owner_id == self.owner_id)
        if self.name is not None:
            terms.append(jobs.c.name == self.name)
        # A tag has no character that JSON would escape.
        terms += [cast(jobs.c.tags, Text).contains(f'"{tag}"', autoescape=True) for tag in self.tags]
        # Ids sort by time, and have an index; a clock that was put right shifts them against `created_at`.
        if self.created_after is not None:
            terms += [jobs.c.created_at > self.created_after, jobs.c.id > _id_at(self.created_after - CLOCK_SHIFT)]
        if self.created_before is not None:
            terms += [jobs.c.created_at < self.created_before, jobs.c.id < _id_at(self.created_before + CLOCK_SHIFT)]
        return and_(true(), *terms)


def page(c: Connection, wanted: JobFilter = JobFilter(), *, limit: int, before: str | None = None) -> list[Job]:
    """The `limit` newest jobs that are wanted, of those with an id below `before`."""
    query = select(jobs).where(wanted.condition())
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [job_from(row) for row in c.execute(query.order_by(jobs.c.id.desc()).limit(limit))]


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


def queue_positions(c: Connection, found: Sequence[Job]) -> dict[str, int]:
    """By id, the place of each queued one among them in the order of claims; 1 is the next."""
    waiting = sorted(
        (job for job in found if job.status == JobStatus.QUEUED),
        key=lambda job: (-job.priority, job.created_at, job.id),
    )
    if not waiting:
        return {}
    # Counted once, up to the first of them: a page shows neighbours, so that few jobs lie between the others.
    first, last = waiting[0], waiting[-1]
    higher, older = (select(func.count()).where(IS_QUEUED, term).scalar_subquery() for term in _before(first))
    num_ahead = c.execute(select(higher + older)).scalar_one()
    if first.priority == last.priority:
        span = and_(jobs.c.priority == first.priority, _age(first) <= _AGE, _age(last) >= _AGE)
    else:
        span = and_(not_(or_(*_before(first))), or_(*_before(last), jobs.c.id == last.id))
    between = select(jobs.c.id).where(IS_QUEUED, span).order_by(*CLAIM_ORDER)
    places = {job_id: num_ahead + index + 1 for index, job_id in enumerate(c.execute(between).scalars())}
    return {job.id: places[job.id] for job in waiting if job.id in places}  # one may just have been claimed


def _before(job: Job) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """SQL conditions of jobs that are claimed before this one: of higher priority, and older ones of the same."""
    return jobs.c.priority > job.priority, and_(jobs.c.priority == job.priority, _age(job) > _AGE)


_AGE = tuple_(jobs.c.created_at, jobs.c.id)


def _age(job: Job) -> ColumnElement[Any]:
    return tuple_(literal(job.created_at, Timestamp), literal(job.id))


def claimable_ids(c: Connection, *, limit: int) -> list[str]:
    """The first jobs that could be claimed now, in the order of claims."""
    query = select(jobs.c.id).where(claimable()).order_by(*CLAIM_ORDER).limit(limit)
    return list(c.execute(query).scalars())


def waiting_for_room(c: Connection) -> list[str]:
    """The jobs that a full disk has paused, and that have waited for a moment, the longest first."""
    since = datetime.now(UTC) - ROOM_DELAY
    waiting = jobs.c.status == JobStatus.PAUSED, jobs.c.pause_reason == PauseReason.DISK_FULL, jobs.c.updated_at < since
    return list(c.execute(select(jobs.c.id).where(*waiting).order_by(jobs.c.updated_at)).scalars())


def claimable() -> Any:
    """SQL condition of jobs that wait and are not held back, by a time or by the quota of their owner."""
    now = datetime.now(UTC)
    # A job that was queued in the future was held back by a clock that has been set back since.
    ready = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now, jobs.c.queued_at > now)
    return and_(IS_QUEUED, ready, quotas.may_run())


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
    return job_from(c.execute(select(jobs).where(jobs.c.id == job_id)).one())


def _id_at(time: datetime) -> str:
    """Below every id that was made at this millisecond or later, not below earlier ones."""
    return f"job_{str(ULID.from_datetime(time))[:10].lower()}"


def _monitor(spec: TrainingSpec) -> str | None:
    """The series that decides which weights are best; None when the last ones are delivered."""
    if spec.early_stopping is not None:
        return spec.early_stopping.monitor
    return "val_loss" if spec.split.val_fraction > 0 else None
