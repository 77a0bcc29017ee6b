"""What the jobs of an API key may take. It is reserved in the transaction that takes it, with the key's row locked.

Whoever locks a key's row as well as a job's locks the job's first or, as a claim does, waits for no job.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, case, func, or_, select, update

from worker.jobs import JobStatus
from worker.store import datasets, uploads
from worker.store.tables import api_keys as keys
from worker.store.tables import artifacts, jobs

WAITING = (JobStatus.QUEUED, JobStatus.PAUSED)
OPEN = (*WAITING, JobStatus.RUNNING)


class QuotaExceeded(Exception):
    """A key's quota does not allow it; nothing was written."""

    def __init__(self, quota: str, *, limit: int, used: float, wanted: float) -> None:
        more = f"{wanted:g} more" if wanted < math.inf else "a job without limits.max_runtime_seconds"
        super().__init__(f"expected at most {limit} of {quota} for the key, got {used:g} and {more}")
        self.quota = quota
        self.limit = limit
        self.used = used


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a key's jobs, uploads and datasets take, with what jobs that have not ended have reserved."""

    queued: int = 0
    """Jobs that wait: queued or paused."""
    running: int = 0
    stored_bytes: int = 0
    device_seconds: float = 0.0


def usage(c: Connection, key_id: str) -> Usage:
    """What the key takes now."""
    left = jobs.c.max_runtime_seconds - jobs.c.runtime_seconds
    open_jobs = c.execute(
        select(
            func.count(case((jobs.c.status != JobStatus.RUNNING, 1))).label("queued"),
            func.count(case((jobs.c.status == JobStatus.RUNNING, 1))).label("running"),
            func.coalesce(func.sum(jobs.c.reserved_bytes), 0).label("bytes"),
            func.coalesce(func.sum(case((left > 0, left), else_=0.0)), 0.0).label("seconds"),
        ).where(jobs.c.owner_id == key_id, jobs.c.status.in_(OPEN))
    ).one()
    spent = c.execute(select(keys.c.device_seconds).where(keys.c.id == key_id)).scalar_one()
    mine = artifacts.c.job_id == jobs.c.id, jobs.c.owner_id == key_id
    made = c.execute(select(func.coalesce(func.sum(artifacts.c.bytes), 0)).where(*mine)).scalar_one()
    sent = uploads.stored(c, key_id) + datasets.stored(c, key_id)
    return Usage(
        queued=open_jobs.queued,
        running=open_jobs.running,
        stored_bytes=int(made) + sent + int(open_jobs.bytes),
        device_seconds=spent + float(open_jobs.seconds),
    )


def cost(reserved_bytes: int, max_runtime_seconds: int | None) -> Usage:
    """What one more job takes."""
    seconds = math.inf if max_runtime_seconds is None else float(max_runtime_seconds)
    return Usage(queued=1, stored_bytes=reserved_bytes, device_seconds=seconds)


def reserve(c: Connection, key_id: str, wanted: Usage) -> None:
    """Allow what was just written in this transaction, or take it back by raising.

    The key's row is locked, so that of two transactions the second one sees what the first has taken.

    Raises:
        QuotaExceeded: one of the key's quotas has no room for it.
    """
    row = c.execute(select(keys).where(keys.c.id == key_id).with_for_update()).one()
    limits: dict[str, int | None] = {name: getattr(row, f"max_{name}") for name in Usage.__dataclass_fields__}
    if all(limit is None for limit in limits.values()):
        return
    used = usage(c, key_id)
    for name, limit in limits.items():
        taken, more = getattr(used, name), getattr(wanted, name)
        if limit is not None and more > 0 and (taken > limit or more == math.inf):
            before = taken if more == math.inf else taken - more
            raise QuotaExceeded(name, limit=limit, used=before, wanted=more)


def may_run() -> ColumnElement[bool]:
    """SQL condition of jobs whose owner may have one more running."""
    others = jobs.alias()
    running = select(func.count()).where(others.c.owner_id == keys.c.id, others.c.status == JobStatus.RUNNING)
    full = select(keys.c.id).where(keys.c.max_running <= running.scalar_subquery())
    return or_(jobs.c.owner_id.is_(None), jobs.c.owner_id.not_in(full))


def lock_running(c: Connection) -> None:
    """Let nobody else start a job of a key that has a limit of running ones, until the transaction ends."""
    c.execute(select(keys.c.id).where(keys.c.max_running.is_not(None)).order_by(keys.c.id).with_for_update()).all()


def charge(c: Connection, key_id: str | None, seconds: float) -> None:
    """Note how long an attempt at a job of the key has run."""
    c.execute(update(keys).where(keys.c.id == key_id).values(device_seconds=keys.c.device_seconds + seconds))
