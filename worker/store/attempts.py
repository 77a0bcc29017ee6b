"""Attempts: what the worker that holds a job writes, each time naming its token, and how attempts end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Update, bindparam, insert, literal, select, update

from worker.jobs import Fenced, Intent, Job, JobError, JobResult, JobStatus, PauseReason
from worker.store import events, quotas
from worker.store.claims import CLAIM_ORDER, claimable
from worker.store.domains import EXACTNESS_ENDED, UNKNOWN, changes_domain, fits, place
from worker.store.jobs import job_from, locked, move
from worker.store.tables import attempts, jobs

_HELD = jobs.c.id == bindparam("held_id"), jobs.c.token == bindparam("held_token"), jobs.c.status == JobStatus.RUNNING
HOLD = (
    update(jobs)
    .where(*_HELD)
    .returning(jobs.c.attempt, jobs.c.intent, jobs.c.cancel_now, jobs.c.phase, jobs.c.monitor, jobs.c.checkpoint_step)
)
_BEAT = HOLD.values(heartbeat=jobs.c.heartbeat + literal(1))
_WISH = select(jobs.c.intent, jobs.c.cancel_now).where(*_HELD)
"""Made once, for they run all the time beside a job that trains: making a statement takes longer than running it."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a job by one worker; `first_step` is the step it resumed from."""

    job_id: str
    number: int
    token: int
    worker_id: str
    device: str
    started_at: datetime
    ended_at: datetime | None
    first_step: int
    last_step: int | None
    exit_code: int | None
    signal: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a trainer's process ended; both None when nobody saw it end."""

    exit_code: int | None = None
    signal: int | None = None


UNSEEN = Exit()


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user wants of a running job; `now`: without waiting for a checkpoint."""

    intent: Intent | None
    now: bool = False


def claim(
    c: Connection,
    *,
    worker_id: str,
    device: str,
    threads: int = 1,
    domains: Mapping[str, str] = UNKNOWN,
    gpus: int = 1,
    job_id: str | None = None,
) -> Job | None:
    """Take the best queued job that fits the worker: highest priority first, then oldest.

    Args:
        device: `cuda` or `cpu`.
        threads: recorded as the job's thread count if this is its first claim.
        domains: the worker's determinism domain on each device, recorded likewise.
        gpus: that a job of the worker sees, if it has any.
        job_id: take only this job.
    """
    quotas.lock_running(c)
    query = select(jobs).where(claimable(), fits(device, threads, domains, gpus))
    if job_id is not None:
        query = query.where(jobs.c.id == job_id)
    best = query.order_by(*CLAIM_ORDER).limit(1)
    row = c.execute(best.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    if changes_domain(row, domains):
        events.append(c, row.id, "job.warning", {"message": EXACTNESS_ENDED, "code": "domain_changed"}, row.attempt + 1)
    return _begin(c, job_from(row), worker_id, place(row, device, threads, domains))


def _begin(c: Connection, job: Job, worker_id: str, place: Mapping[str, Any]) -> Job:
    """Make the job running, with a new attempt and a new token."""
    now = datetime.now(UTC)
    taken = move(
        c,
        job,
        JobStatus.RUNNING,
        reason="claimed",
        attempt=job.attempt + 1,
        token=job.token + 1,
        heartbeat=job.heartbeat + 1,
        phase="starting",
        worker_id=worker_id,
        started_at=job.started_at or now,
        **place,
    )
    c.execute(
        insert(attempts).values(
            job_id=taken.id,
            number=taken.attempt,
            token=taken.token,
            worker_id=worker_id,
            device=place["device"],
            started_at=now,
            first_step=taken.checkpoint_step,
        )
    )
    return taken


def hold(c: Connection, job_id: str, token: int, statement: Update = HOLD, /, **values: Any) -> Row[Any]:
    """Set columns of a job that the caller must hold, and keep it locked until the transaction ends.

    Args:
        statement: `HOLD`, or one made of it that also sets columns to SQL expressions.

    Raises:
        Fenced: the caller does not hold the job.
    """
    row = c.execute(statement, {"held_id": job_id, "held_token": token, "token": token, **values}).one_or_none()
    if row is None:
        raise Fenced(job_id, token)
    return row


def heartbeat(c: Connection, job_id: str, token: int) -> Wish:
    """Raise the counter, and learn what the user wants.

    Raises:
        Fenced: the caller does not hold the job.
    """
    row = hold(c, job_id, token, _BEAT)
    return Wish(intent=row.intent and Intent(row.intent), now=row.cancel_now)


def wish(c: Connection, job_id: str, token: int) -> Wish:
    """What the user wants.

    Raises:
        Fenced: the caller does not hold the job.
    """
    row = c.execute(_WISH, {"held_id": job_id, "held_token": token}).one_or_none()
    if row is None:
        raise Fenced(job_id, token)
    return Wish(intent=row.intent and Intent(row.intent), now=row.cancel_now)


def progress(
    c: Connection,
    job_id: str,
    token: int,
    *,
    epoch: int,
    epochs: int,
    step: int,
    num_steps: int,
    eta_at: datetime | None,
) -> None:
    """Record how far training is, with its event.

    Raises:
        Fenced: the caller does not hold the job.
    """
    place = {"epoch": epoch, "epochs": epochs, "step": step, "num_steps": num_steps}
    row = hold(c, job_id, token, **place, eta_at=eta_at, progress_at=datetime.now(UTC))
    events.append(c, job_id, "job.progress", {"phase": row.phase, **place}, row.attempt)


def phase(c: Connection, job_id: str, token: int, phase: str) -> None:
    """Record what the trainer does now, with its event.

    Raises:
        Fenced: the caller does not hold the job.
    """
    row = hold(c, job_id, token, phase=phase)
    events.append(c, job_id, "job.progress", {"phase": phase}, row.attempt)


def checkpoint(c: Connection, job_id: str, token: int, *, epoch: int, step: int) -> None:
    """Record a complete checkpoint: a later attempt continues from it.

    Raises:
        Fenced: the caller does not hold the job.
    """
    row = hold(c, job_id, token, checkpoint_step=step, fruitless_attempts=0)
    events.append(c, job_id, "job.checkpoint", {"epoch": epoch, "step": step}, row.attempt)


def finish(
    c: Connection,
    job_id: str,
    token: int,
    status: JobStatus,
    *,
    reason: str,
    result: JobResult | None = None,
    error: JobError | None = None,
    exit: Exit = UNSEEN,
) -> Job:
    """End the job: succeeded with a result, failed with an error, or cancelled.

    Raises:
        Fenced: the caller does not hold the job.
    """
    job = held(c, job_id, token)
    close(c, job, reason, exit)
    return move(
        c,
        job,
        status,
        reason=reason,
        result=None if result is None else asdict(result),
        error=None if error is None else asdict(error),
    )


def requeue(c: Connection, job_id: str, token: int, *, reason: str, exit: Exit = UNSEEN) -> Job:
    """Give the job back for no fault of its own, such as when its worker stops: it waits for the next worker.

    Raises:
        Fenced: the caller does not hold the job.
    """
    job = held(c, job_id, token)
    close(c, job, reason, exit)
    return give_back(c, job, reason)


def pause_for_disk(c: Connection, job_id: str, token: int, *, exit: Exit = UNSEEN) -> Job:
    """Give the job back because the disk is full: it waits for room, unless its user wants something else of it.

    Raises:
        Fenced: the caller does not hold the job.
    """
    job = held(c, job_id, token)
    close(c, job, PauseReason.DISK_FULL, exit)
    if job.intent is not None:
        return give_back(c, job, PauseReason.DISK_FULL)
    return move(c, job, JobStatus.PAUSED, reason=PauseReason.DISK_FULL, pause_reason=PauseReason.DISK_FULL)


def list_for(c: Connection, job_id: str) -> list[Attempt]:
    """The attempts at a job, oldest first."""
    query = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
    return [Attempt(**row._asdict()) for row in c.execute(query)]


def held(c: Connection, job_id: str, token: int) -> Job:
    """The job, locked, which the caller must hold.

    Raises:
        Fenced: the caller does not hold the job.
    """
    held = jobs.c.token == token, jobs.c.status == JobStatus.RUNNING
    job = locked(c, select(jobs).where(jobs.c.id == job_id, *held))
    if job is None:
        raise Fenced(job_id, token)
    return job


def close(c: Connection, job: Job, reason: str, exit: Exit) -> int:
    """Close the newest attempt, and count its time; returns the step that it began at."""
    mine = attempts.c.job_id == job.id, attempts.c.number == job.attempt
    begun = c.execute(select(attempts.c.first_step, attempts.c.started_at).where(*mine)).one()
    now = datetime.now(UTC)
    told = job.progress if job.progress is not None and job.progress.updated_at >= begun.started_at else None
    c.execute(
        update(attempts)
        .where(*mine)
        .values(
            ended_at=now,
            last_step=begun.first_step if told is None else told.step,
            exit_code=exit.exit_code,
            signal=exit.signal,
            reason=reason,
        )
    )
    seconds = max(0.0, (now - begun.started_at).total_seconds())
    c.execute(update(jobs).where(jobs.c.id == job.id).values(runtime_seconds=jobs.c.runtime_seconds + seconds))
    quotas.charge(c, job.owner_id, seconds)
    return int(begun.first_step)


def give_back(c: Connection, job: Job, reason: str, **values: Any) -> Job:
    """Back to the queue, or to where the user wants it."""
    if job.intent == Intent.CANCEL:
        return move(c, job, JobStatus.CANCELLED, reason="cancelled")
    if job.intent == Intent.PAUSE:
        return move(c, job, JobStatus.PAUSED, reason="paused", **values)
    # A token of its own fences the old worker even before the next claim.
    return move(c, job, JobStatus.QUEUED, reason=reason, token=job.token + 1, **values)
