"""Workers: who is there, and when each was last seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from worker.store.tables import workers

FORGET_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker process; `status` is active, draining (takes no new jobs) or stopped."""

    id: str
    host: str
    pid: int
    device: str
    slots: int
    threads: int
    """CPU threads of each slot's trainer."""
    status: str
    heartbeat: int
    started_at: datetime
    last_seen_at: datetime
    cpu_domain: str | None
    """Determinism domain of its trainers on the CPU; None until it is found."""
    cuda_domain: str | None
    gpus_per_slot: int
    """That each slot's trainer sees, where there are any."""


def register(
    c: Connection,
    *,
    worker_id: str,
    host: str,
    pid: int,
    device: str,
    slots: int,
    threads: int,
    gpus_per_slot: int = 1,
) -> None:
    """Write a new worker, and forget those that were not seen for a day."""
    now = datetime.now(UTC)
    c.execute(delete(workers).where(workers.c.last_seen_at < now - FORGET_AFTER))
    c.execute(
        insert(workers).values(
            id=worker_id,
            host=host,
            pid=pid,
            device=device,
            slots=slots,
            threads=threads,
            gpus_per_slot=gpus_per_slot,
            status="active",
            heartbeat=1,
            started_at=now,
            last_seen_at=now,
        )
    )


def beat(c: Connection, worker_id: str, status: str) -> None:
    """Note that the worker is there, and what it does."""
    c.execute(
        update(workers)
        .where(workers.c.id == worker_id)
        .values(status=status, heartbeat=workers.c.heartbeat + 1, last_seen_at=datetime.now(UTC))
    )


def record_domains(c: Connection, worker_id: str, domains: Mapping[str, str]) -> None:
    """Note the worker's determinism domain on each device."""
    found = {"cpu_domain": domains.get("cpu"), "cuda_domain": domains.get("cuda")}
    c.execute(update(workers).where(workers.c.id == worker_id).values(found))


def recent(c: Connection, *, seconds: float) -> list[Worker]:
    """The active workers that were seen in the last `seconds`."""
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    query = select(workers).where(workers.c.status == "active", workers.c.last_seen_at >= since)
    return [Worker(**row._asdict()) for row in c.execute(query.order_by(workers.c.id))]


def known(c: Connection) -> list[Worker]:
    """Every worker that was seen within a day, those that came last first."""
    query = select(workers).order_by(workers.c.started_at.desc(), workers.c.id)
    return [Worker(**row._asdict()) for row in c.execute(query)]
