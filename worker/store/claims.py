"""Jobs that wait: which of them could be claimed now, in which order, and who comes before whom."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
)

from worker.jobs import Job, JobStatus, PauseReason
from worker.store import quotas
from worker.store.tables import Timestamp, jobs

CLAIM_ORDER = jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id
QUEUED: ColumnElement[str] = literal_column("'queued'")
"""Written out, not as a parameter: only so does the index of the queue fit, which holds nothing else."""
IS_QUEUED = jobs.c.status == QUEUED
_ANY_QUEUED = select(exists().where(IS_QUEUED))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Before all jobs."""
ROOM_DELAY = timedelta(seconds=5)
"""Where a quota is full and not the disk, nobody sees it: without a wait such a job would be tried all the time."""

_WAITING_FOR_ROOM = (
    select(jobs.c.id)
    .where(jobs.c.status == JobStatus.PAUSED, jobs.c.pause_reason == PauseReason.DISK_FULL)
    .where(jobs.c.updated_at < bindparam("since"))
    .order_by(jobs.c.updated_at)
)


def claimable() -> Any:
    """SQL condition of jobs that wait and are not held back, by a time or by the quota of their owner."""
    now = datetime.now(UTC)
    # A job that was queued in the future was held back by a clock that has been set back since.
    ready = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now, jobs.c.queued_at > now)
    return and_(IS_QUEUED, ready, quotas.may_run())


def claimable_ids(c: Connection, *, limit: int, fitting: ColumnElement[bool] | None = None) -> list[str]:
    """The first jobs that could be claimed now, in the order of claims.

    Args:
        fitting: SQL condition of those that count; all by default.
    """
    if not c.execute(_ANY_QUEUED).scalar_one():  # asked all the time, beside the jobs that train: mostly none waits
        return []
    terms = [claimable()] if fitting is None else [claimable(), fitting]
    query = select(jobs.c.id).where(*terms).order_by(*CLAIM_ORDER).limit(limit)
    return list(c.execute(query).scalars())


def waiting_for_room(c: Connection) -> list[str]:
    """The jobs that a full disk has paused, and that have waited for a moment, the longest first."""
    return list(c.execute(_WAITING_FOR_ROOM, {"since": datetime.now(UTC) - ROOM_DELAY}).scalars())


def queue_positions(c: Connection, found: Sequence[Job]) -> dict[str, int]:
    """By id, the place of each queued one among them in the order of claims; 1 is the next."""
    queued = [job for job in found if job.status == JobStatus.QUEUED]
    if len(queued) == 1:
        (job,) = queued
        place = {"own_priority": job.priority, "own_time": job.created_at, "own_id": job.id}
        return {job.id: c.execute(_PLACE, place).scalar_one()}
    rows = c.execute(_AHEAD, {"ids": [job.id for job in queued]}).all() if queued else []
    if not rows:
        return {}
    sizes = c.execute(_HIGHER, {"lowest": rows[-1].priority}).all()
    places = {}
    for priority, same in groupby(rows, lambda row: row.priority):
        num_ahead = sum(size for other, size in sizes if other > priority)
        for row in same:
            num_ahead += row.num_between
            places[row.id] = num_ahead + row.num_beside + 1
    return places


def _ahead() -> Select[Any]:
    """Of the jobs `:ids` that wait, in the order of claims: how many others of the same priority are just before each.

    `num_between` are those from the time of the one before (from the first of all) up to its own, so that each entry of
    the index is counted once; `num_beside` are those of exactly its time that come before it.
    """
    others = jobs.alias()
    before = func.lag(jobs.c.created_at).over(partition_by=jobs.c.priority, order_by=(jobs.c.created_at, jobs.c.id))
    previous = func.coalesce(before, literal(EPOCH, Timestamp))
    columns = jobs.c.id, jobs.c.priority, jobs.c.created_at, previous.label("previous")
    shown = select(*columns).where(IS_QUEUED, jobs.c.id.in_(bindparam("ids", expanding=True))).subquery()
    same = select(func.count()).where(others.c.status == QUEUED, others.c.priority == shown.c.priority)
    between = same.where(others.c.created_at >= shown.c.previous, others.c.created_at < shown.c.created_at)
    beside = same.where(others.c.created_at == shown.c.created_at, others.c.id < shown.c.id)
    counts = between.scalar_subquery().label("num_between"), beside.scalar_subquery().label("num_beside")
    return select(shown.c.id, shown.c.priority, *counts).order_by(
        shown.c.priority.desc(), shown.c.created_at, shown.c.id
    )


def _place() -> Select[Any]:
    """The place of one job that waits, from what is known of it."""
    count = select(func.count()).where(IS_QUEUED)
    higher = count.where(jobs.c.priority > bindparam("own_priority"))
    same = count.where(jobs.c.priority == bindparam("own_priority"))
    earlier = same.where(jobs.c.created_at < bindparam("own_time"))
    beside = same.where(jobs.c.created_at == bindparam("own_time"), jobs.c.id < bindparam("own_id"))
    return select(higher.scalar_subquery() + earlier.scalar_subquery() + beside.scalar_subquery() + 1)


_PLACE = _place()
"""For a single job: an answer to one request asks for it, and the statement for many would take twice as long."""
_AHEAD = _ahead()
_HIGHER = (
    select(jobs.c.priority, func.count())
    .where(IS_QUEUED, jobs.c.priority > bindparam("lowest"))
    .group_by(jobs.c.priority)
)
