"""What happened to each job, numbered from 1 without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from worker.jobs import JobNotFound, JobStatus
from worker.store.tables import events, jobs

_LAST_ID = select(jobs.c.last_event_id).where(jobs.c.id == bindparam("job_id")).with_for_update()
_COUNT = update(jobs).where(jobs.c.id == bindparam("of_job"))
_INSERT = insert(events)
"""Made once: for one row, making a statement takes longer than running it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to one job; `id` counts from 1 within the job."""

    id: int
    type: str
    at: datetime
    attempt: int
    data: dict[str, Any]


def begin(c: Connection, job_id: str, at: datetime) -> None:
    """Write the first event of a job that is made in this transaction, with `last_event_id` 1 and at this time."""
    data = {"from": None, "to": JobStatus.QUEUED, "reason": "created"}
    c.execute(_INSERT, {"job_id": job_id, "id": 1, "type": "job.status", "at": at, "attempt": 0, "data": data})


def append(c: Connection, job_id: str, type: str, data: dict[str, Any], attempt: int) -> int:
    """Write an event and return its id; belongs in the transaction of what it tells.

    Raises:
        JobNotFound: there is no such job.
    """
    # The counter is on the job's row, so that its lock makes ids gap-free, and ids and times in the order of commits.
    last = c.execute(_LAST_ID, {"job_id": job_id}).scalar_one_or_none()
    if last is None:
        raise JobNotFound(job_id)
    event_id, now = int(last) + 1, datetime.now(UTC)
    c.execute(_COUNT, {"of_job": job_id, "last_event_id": event_id, "updated_at": now})
    c.execute(_INSERT, {"job_id": job_id, "id": event_id, "type": type, "at": now, "attempt": attempt, "data": data})
    return event_id


def after(c: Connection, job_id: str, after: int, limit: int, types: Sequence[str] = ()) -> list[Event]:
    """The first `limit` events with an id above `after`, of these types (of all when none is named)."""
    query = select(events).where(events.c.job_id == job_id, events.c.id > after)
    if types:
        query = query.where(events.c.type.in_(types))
    return [
        Event(id=row.id, type=row.type, at=row.at, attempt=row.attempt, data=row.data)
        for row in c.execute(query.order_by(events.c.id).limit(limit))
    ]
