"""Attempts that ended badly: whether the job is tried again, when, and when it has failed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select

from worker.jobs import Blame, ErrorCode, Intent, Job, JobError, JobStatus
from worker.settings import Settings
from worker.store.attempts import UNSEEN, Exit, close, give_back, held
from worker.store.jobs import locked, move
from worker.store.tables import jobs


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a job that makes no progress is tried (`max_fruitless`), and how long it waits in between."""

    max_fruitless: int
    backoff_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> RetryPolicy:
        return cls(max_fruitless=settings.max_fruitless_attempts, backoff_seconds=settings.retry_backoff_seconds)


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The counter that the holder of `token` raises while it lives."""

    job_id: str
    token: int
    counter: int


_RUNNING = select(jobs.c.id, jobs.c.token, jobs.c.heartbeat).where(jobs.c.status == JobStatus.RUNNING)
"""Made once, for it runs all the time beside the jobs that train."""


def running(c: Connection) -> list[Heartbeat]:
    """The heartbeat of every running job."""
    return [Heartbeat(job_id=row.id, token=row.token, counter=row.heartbeat) for row in c.execute(_RUNNING)]


def crash(c: Connection, job_id: str, token: int, *, error: JobError, policy: RetryPolicy, exit: Exit = UNSEEN) -> Job:
    """End an attempt whose trainer died: the job waits for a moment and is tried again, or fails with `error`.

    Raises:
        Fenced: the caller does not hold the job.
    """
    job = held(c, job_id, token)
    fruitless = _fruitless(job, close(c, job, error.code, exit))
    delay = policy.backoff_seconds * 2 ** max(0, fruitless - 1)
    return _retry(c, job, error.code, fruitless=fruitless, delay=delay, policy=policy, error=error)


def take_back(c: Connection, job_id: str, token: int, heartbeat: int, *, policy: RetryPolicy) -> Job | None:
    """Take a silent job from its worker; None when the job has moved or its counter has risen meanwhile."""
    seen = jobs.c.status == JobStatus.RUNNING, jobs.c.token == token, jobs.c.heartbeat == heartbeat
    job = locked(c, select(jobs).where(jobs.c.id == job_id, *seen))
    if job is None:
        return None
    fruitless = _fruitless(job, close(c, job, "worker_lost", UNSEEN))
    error = JobError(
        code=ErrorCode.MAX_ATTEMPTS_EXCEEDED,
        message=f"{fruitless} workers in a row were lost before a newer checkpoint was written, "
        f"the last one was {job.worker_id}",
        blame=Blame.PLATFORM,
        retryable=True,
    )
    return _retry(c, job, "worker_lost", fruitless=fruitless, delay=0.0, policy=policy, error=error)


def _fruitless(job: Job, first_step: int) -> int:
    """Consecutive fruitless attempts, counting the one that has just ended badly."""
    return 0 if job.checkpoint_step > first_step else job.fruitless_attempts + 1


def _retry(
    c: Connection, job: Job, reason: str, *, fruitless: int, delay: float, policy: RetryPolicy, error: JobError
) -> Job:
    if fruitless >= policy.max_fruitless and job.intent != Intent.CANCEL:
        values = {"error": asdict(error), "fruitless_attempts": fruitless}
        return move(c, job, JobStatus.FAILED, reason=reason, **values)
    return give_back(c, job, reason, fruitless_attempts=fruitless, not_before=_later(delay))


def _later(seconds: float) -> datetime | None:
    return datetime.now(UTC) + timedelta(seconds=seconds) if seconds else None
