"""Metric series: one value per job, key and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.jobs import Best
from worker.store import attempts as attempts_store
from worker.store import events
from worker.store.tables import attempts, jobs, metrics

Cursor = tuple[int, str]
"""(step, key) of the last point seen."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value of the series `key`; None stands for one that is not finite. `timing` series depend on the clock."""

    key: str
    epoch: int
    step: int
    value: float | None
    at: datetime
    timing: bool = False


def append(c: Connection, job_id: str, token: int, rows: Sequence[Point]) -> None:
    """Write points (again, where an attempt repeats a step), the latest and best values, and an event per new step.

    Raises:
        Fenced: the caller does not hold the job.
    """
    if not rows:
        return
    held = attempts_store.hold(c, job_id, token)
    steps = {row.step for row in rows}
    known = set(
        c.execute(
            select(metrics.c.step).where(metrics.c.job_id == job_id, metrics.c.step.in_(steps)).distinct()
        ).scalars()
    )
    dialect = postgresql if c.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(metrics)
    statement = statement.on_conflict_do_update(
        index_elements=["job_id", "key", "step"],
        set_={name: statement.excluded[name] for name in ("epoch", "value", "timing", "at")},
    )
    c.execute(statement, [{"job_id": job_id, **asdict(row)} for row in rows])
    for step in sorted(steps - known):
        at_step = [row for row in rows if row.step == step]
        told = {
            "epoch": at_step[0].epoch,
            "step": step,
            "values": {row.key: row.value for row in at_step if not row.timing},
            "timings": {row.key: row.value for row in at_step if row.timing},
        }
        events.append(c, job_id, "job.metric", told, held.attempt)
    _summarize(c, job_id, held.monitor)


def resume(c: Connection, job_id: str, token: int, *, step: int) -> None:
    """Begin an attempt at `step`: what earlier attempts recorded after it goes, and will be recorded again.

    Raises:
        Fenced: the caller does not hold the job.
    """
    # A checkpoint that a dying worker could not record is progress nevertheless.
    fruitless = case((jobs.c.checkpoint_step < step, 0), else_=jobs.c.fruitless_attempts)
    statement = attempts_store.HOLD.values(fruitless_attempts=fruitless)
    held = attempts_store.hold(c, job_id, token, statement, checkpoint_step=step)
    c.execute(
        update(attempts).where(attempts.c.job_id == job_id, attempts.c.number == held.attempt).values(first_step=step)
    )
    c.execute(delete(metrics).where(metrics.c.job_id == job_id, metrics.c.step > step))
    _summarize(c, job_id, held.monitor)


def points(
    c: Connection,
    job_id: str,
    *,
    keys: Sequence[str] = (),
    from_step: int | None = None,
    after: Cursor | None = None,
    limit: int,
) -> list[Point]:
    """The first `limit` points after a cursor, by step and then key; all series when no key is named."""
    query = select(metrics).where(metrics.c.job_id == job_id)
    if keys:
        query = query.where(metrics.c.key.in_(keys))
    if from_step is not None:
        query = query.where(metrics.c.step >= from_step)
    if after is not None:
        step, key = after
        query = query.where(or_(metrics.c.step > step, and_(metrics.c.step == step, metrics.c.key > key)))
    return [
        Point(key=row.key, epoch=row.epoch, step=row.step, value=row.value, at=row.at, timing=row.timing)
        for row in c.execute(query.order_by(metrics.c.step, metrics.c.key).limit(limit))
    ]


def keys(c: Connection, job_id: str) -> list[str]:
    """The names of the job's series."""
    query = select(metrics.c.key).where(metrics.c.job_id == job_id).distinct().order_by(metrics.c.key)
    return list(c.execute(query).scalars())


def _summarize(c: Connection, job_id: str, monitor: str | None) -> None:
    """Derive the job's latest and best values from its points, so that they can never disagree."""
    mine = metrics.c.job_id == job_id, metrics.c.timing.is_(False)
    newest = select(func.max(metrics.c.step)).where(*mine).scalar_subquery()
    rows = c.execute(select(metrics.c.key, metrics.c.value).where(*mine, metrics.c.step == newest))
    latest: dict[str, Any] = {row.key: row.value for row in rows}
    best = None if monitor is None else _best(c, job_id, monitor)
    c.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(latest_metrics=latest, best=None if best is None else asdict(best))
    )


def _best(c: Connection, job_id: str, monitor: str) -> Best | None:
    order = metrics.c.value.asc() if monitor.endswith("loss") else metrics.c.value.desc()
    row = c.execute(
        select(metrics)
        .where(metrics.c.job_id == job_id, metrics.c.key == monitor, metrics.c.value.is_not(None))
        .order_by(order, metrics.c.step)
        .limit(1)
    ).one_or_none()
    return None if row is None else Best(metric=monitor, value=row.value, epoch=row.epoch, step=row.step)
