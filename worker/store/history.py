"""What the other jobs tell of the time that one will take: those that are finished, and those that come before it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, literal_column, select

from worker.jobs import JobStatus
from worker.store.claims import CLAIM_ORDER, IS_QUEUED
from worker.store.tables import attempts, jobs

MAX_RUNS = 64
MAX_WAITING = 200
_SUCCEEDED = jobs.c.status == literal_column("'succeeded'")
"""Written out, not as a parameter: only so does the index fit that has the succeeded jobs by device and threads."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A job that its first attempt finished: its spec as JSON text, the epochs that it took, and its seconds."""

    spec: str
    epochs: int
    seconds: float


def finished_runs(c: Connection, *, device: str, threads: int) -> list[FinishedRun]:
    """The newest of them on a device with so many threads, at most `MAX_RUNS`."""
    query = (
        select(jobs.c.spec, jobs.c.epoch, attempts.c.started_at, attempts.c.ended_at)
        .join(attempts, (attempts.c.job_id == jobs.c.id) & (attempts.c.number == 1))
        .where(_SUCCEEDED, jobs.c.attempt == 1, jobs.c.epoch.is_not(None))
        .where(jobs.c.device == device, jobs.c.threads == threads)
        .order_by(jobs.c.id.desc())
        .limit(MAX_RUNS)
    )
    return [
        FinishedRun(spec=_text(row.spec), epochs=row.epoch, seconds=(row.ended_at - row.started_at).total_seconds())
        for row in c.execute(query)
    ]


def newest_kind(c: Connection) -> tuple[str, int] | None:
    """Device and threads of the job that was finished last."""
    finished = jobs.c.status == JobStatus.SUCCEEDED, jobs.c.device.is_not(None), jobs.c.threads.is_not(None)
    query = select(jobs.c.device, jobs.c.threads).where(*finished).order_by(jobs.c.id.desc()).limit(1)
    row = c.execute(query).one_or_none()
    return None if row is None else (row.device, row.threads)


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """A job that will have a slot before a new one: its spec as JSON text, and when it is due where it runs."""

    spec: str
    eta_at: datetime | None
    is_running: bool


def ahead(c: Connection) -> list[Ahead]:
    """The running jobs, then up to `MAX_WAITING` that are claimed before a new job of priority 0, in that order."""
    columns = select(jobs.c.spec, jobs.c.eta_at, jobs.c.status)
    running = c.execute(columns.where(jobs.c.status == JobStatus.RUNNING)).all()
    waiting = columns.where(IS_QUEUED, jobs.c.priority >= 0).order_by(*CLAIM_ORDER)
    rows = [*running, *c.execute(waiting.limit(MAX_WAITING))]
    return [Ahead(spec=_text(row.spec), eta_at=row.eta_at, is_running=row.status == JobStatus.RUNNING) for row in rows]


def _text(spec: dict[str, Any]) -> str:
    return json.dumps(spec, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Underway:
    """A job that runs or waits: its spec as JSON text, the device it wants and how many, who has it, when it is due."""

    id: str
    spec: str
    wanted_device: str
    devices: int
    worker_id: str | None
    eta_at: datetime | None


_UNDERWAY = select(jobs.c.id, jobs.c.spec, jobs.c.wanted_device, jobs.c.worker_id, jobs.c.eta_at)


def running(c: Connection) -> list[Underway]:
    """The jobs that workers hold."""
    return _underway(c, _UNDERWAY.where(jobs.c.status == JobStatus.RUNNING))


def waiting(c: Connection, *, limit: int) -> list[Underway]:
    """The first jobs of the queue, in the order of claims."""
    return _underway(c, _UNDERWAY.where(IS_QUEUED).order_by(*CLAIM_ORDER).limit(limit))


def _underway(c: Connection, query: Select[Any]) -> list[Underway]:
    return [
        Underway(**{**row._asdict(), "spec": _text(row.spec), "devices": row.spec["training"].get("devices", 1)})
        for row in c.execute(query)
    ]
