"""The events of all jobs in one order, which a reader can follow without missing any.

An event is written without a number, and gets one after it was committed: whoever reads gives numbers to what has none,
one reader at a time. So numbers rise in the order in which readers come to see the events. A number that an event drew
when it was written would not do: on PostgreSQL the transaction that drew the smaller one may commit later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, exists, select, update

from worker.store.events import Event
from worker.store.tables import event_numbers, events, jobs


@dataclass(frozen=True, kw_only=True)
class LoggedEvent(Event):
    """An event of one of all jobs."""

    number: int
    """Its place among the events of all jobs: rises, with gaps where jobs were deleted."""
    job_id: str
    owner_id: str | None
    """Whose the job is."""


_HAS_UNNUMBERED = select(exists().where(events.c.number.is_(None)))
_UNNUMBERED = (
    select(events.c.job_id, events.c.id)
    .where(events.c.number.is_(None))
    .order_by(events.c.job_id, events.c.id)
    .limit(bindparam("limit"))
)
_GIVE = (
    update(events)
    .where(events.c.job_id == bindparam("of"), events.c.id == bindparam("which"))
    .values(number=bindparam("given"))
)
_LAST = select(event_numbers.c.last)
_AFTER = (
    select(events, jobs.c.owner_id)
    .join(jobs, jobs.c.id == events.c.job_id)
    .where(events.c.number > bindparam("number_seen"))
    .order_by(events.c.number)
    .limit(bindparam("limit"))
)
"""Made once, for these run all the time beside the jobs that train."""


def has_unnumbered(c: Connection) -> bool:
    """Whether there are events without a number."""
    return bool(c.execute(_HAS_UNNUMBERED).scalar_one())


def give_numbers(c: Connection, *, limit: int = 1000) -> int:
    """Number the first `limit` events that have none, those of one job in their order; how many there were."""
    # Who waits for this lock sees, once it has it, what the holder has numbered.
    last = c.execute(_LAST.with_for_update()).scalar_one()
    rows = c.execute(_UNNUMBERED, {"limit": limit}).all()
    if not rows:
        return 0
    numbered = [{"of": row.job_id, "which": row.id, "given": last + 1 + index} for index, row in enumerate(rows)]
    c.execute(_GIVE, numbered)
    c.execute(update(event_numbers).values(last=last + len(rows)))
    return len(rows)


def last_number(c: Connection) -> int:
    """The newest number; 0 before the first."""
    return int(c.execute(_LAST).scalar_one())


def after(
    c: Connection, number: int, limit: int, types: Sequence[str] = (), owner_id: str | None = None
) -> list[LoggedEvent]:
    """The first `limit` events with a number above this one, of these types and this owner (of all without one)."""
    query = _AFTER
    if types:
        query = query.where(events.c.type.in_(types))
    if owner_id is not None:
        query = query.where(jobs.c.owner_id == owner_id)
    return [LoggedEvent(**row._asdict()) for row in c.execute(query, {"number_seen": number, "limit": limit})]
