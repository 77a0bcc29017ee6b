"""What users ask of jobs: cancel, pause, resume, retry, change, delete. Each is one transaction with its event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select, update

from worker.jobs import Intent, InvalidTransition, Job, JobStatus, PauseReason
from worker.store import events, quotas
from worker.store.jobs import add_tags, existing, lock, locked, move
from worker.store.tables import artifacts, attempts, job_tags, jobs, metrics
from worker.store.tables import events as events_table

NO_PROGRESS = dict.fromkeys(("epoch", "epochs", "step", "num_steps", "eta_at", "progress_at"))
NO_DOMAIN = dict.fromkeys(("domain", "determinism", "threads"))


def request_cancel(c: Connection, job_id: str, now: bool = False) -> Job:
    """Cancel a waiting job at once; a running one is told to stop by its worker. Repeating it is harmless.

    Args:
        now: the trainer is killed instead of asked to stop; may be wanted while it is being asked.

    Raises:
        JobNotFound: there is no such job.
        InvalidTransition: the job has succeeded or failed.
    """
    job = lock(c, job_id)
    if job.status == JobStatus.CANCELLED:
        return job
    # A failed job can go back to the queue, but has nothing left to cancel.
    if job.terminal:
        raise InvalidTransition(job, JobStatus.CANCELLED)
    if job.status != JobStatus.RUNNING:
        return move(c, job, JobStatus.CANCELLED, reason="cancelled")
    return _want(c, job, Intent.CANCEL, now=now or job.cancel_now)


def request_pause(c: Connection, job_id: str) -> Job:
    """Pause a waiting job at once, a running one when its trainer has written a checkpoint. Repeating it is harmless.

    A job that waits for room on the disk no longer goes on by itself.

    Raises:
        JobNotFound: there is no such job.
        InvalidTransition: the job has ended, or is being cancelled.
    """
    job = lock(c, job_id)
    if job.status == JobStatus.PAUSED:
        return change(c, job_id, pause_reason=PauseReason.USER)
    if job.status == JobStatus.QUEUED:
        return move(c, job, JobStatus.PAUSED, reason="paused")
    if job.terminal or job.intent == Intent.CANCEL:
        raise InvalidTransition(job, JobStatus.PAUSED)
    return _want(c, job, Intent.PAUSE)


def resume(c: Connection, job_id: str) -> Job:
    """Queue a paused job, or take back a pause that has not happened yet. Repeating it is harmless.

    Raises:
        JobNotFound: there is no such job.
        InvalidTransition: the job has ended, or is being cancelled.
    """
    job = lock(c, job_id)
    if job.status == JobStatus.PAUSED:
        return move(c, job, JobStatus.QUEUED, reason="resumed")
    if job.terminal or job.intent == Intent.CANCEL:
        raise InvalidTransition(job, JobStatus.QUEUED)
    # Where the trainer has already been told to stop, its end sends the job back to the queue.
    return _want(c, job, None)


def resume_from_disk_full(c: Connection, job_id: str) -> bool:
    """Queue a job that waits for room on the disk; whether it still did."""
    job = locked(c, select(jobs).where(jobs.c.id == job_id, jobs.c.pause_reason == PauseReason.DISK_FULL))
    if job is None:
        return False
    move(c, job, JobStatus.QUEUED, reason="disk_has_room")
    return True


def retry(c: Connection, job_id: str, scratch: bool = False) -> Job:
    """Queue a failed or cancelled job again; it continues from its newest checkpoint. Repeating it is harmless.

    It may run once more for as long as its limits say.

    Args:
        scratch: it begins anew on any worker, and the checkpoints of its earlier attempts count no more.

    Raises:
        JobNotFound: there is no such job.
        InvalidTransition: the job has succeeded, is paused or is being cancelled, or goes on other than asked.
        QuotaExceeded: its owner has no room for it.
    """
    job = lock(c, job_id)
    repeated = job.status in (JobStatus.QUEUED, JobStatus.RUNNING) and job.intent is None
    if repeated and (not scratch or job.first_attempt > 1):
        return job
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise InvalidTransition(job, JobStatus.QUEUED)
    anew = {"first_attempt": job.attempt + 1, "checkpoint_step": 0, **NO_PROGRESS, **NO_DOMAIN} if scratch else {}
    retried = move(c, job, JobStatus.QUEUED, reason="retried", fruitless_attempts=0, runtime_seconds=0.0, **anew)
    if job.owner_id is not None:
        quotas.reserve(c, job.owner_id, quotas.cost(job.reserved_bytes, job.max_runtime_seconds))
    return retried


def change(c: Connection, job_id: str, **values: Any) -> Job:
    """Set the name, the tags or the priority, whatever the status: the order of claims follows at once.

    Raises:
        JobNotFound: there is no such job.
    """
    job = lock(c, job_id)
    changed = {name: value for name, value in values.items() if value != getattr(job, name)}
    if changed:
        c.execute(update(jobs).where(jobs.c.id == job_id).values(changed))
        if "tags" in changed:
            c.execute(delete(job_tags).where(job_tags.c.job_id == job_id))
            add_tags(c, job_id, changed["tags"])
        events.append(c, job_id, "job.changed", changed, job.attempt)
    return existing(c, job_id)


def remove(c: Connection, job_id: str) -> Sequence[str]:
    """Delete all rows of a job that has ended; returns the SHA-256 of blobs that no other job's artifact needs.

    Raises:
        JobNotFound: there is no such job.
        InvalidTransition: the job has not ended.
    """
    job = lock(c, job_id)
    if not job.terminal:
        raise InvalidTransition(job, "deleted")
    mine = set(c.execute(select(artifacts.c.sha256).where(artifacts.c.job_id == job_id)).scalars())
    for table in (artifacts, metrics, events_table, attempts, job_tags):
        c.execute(delete(table).where(table.c.job_id == job_id))
    c.execute(delete(jobs).where(jobs.c.id == job_id))
    needed = set(c.execute(select(artifacts.c.sha256).where(artifacts.c.sha256.in_(mine))).scalars())
    return sorted(mine - needed)


def _want(c: Connection, job: Job, intent: Intent | None, *, now: bool = False) -> Job:
    """Write an intent with its event, unless it is there already."""
    if (job.intent, job.cancel_now) == (intent, now):
        return job
    c.execute(update(jobs).where(jobs.c.id == job.id).values(intent=intent, cancel_now=now))
    events.append(c, job.id, "job.intent", {"from": job.intent, "to": intent, "now": now}, job.attempt)
    return existing(c, job.id)
