from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from worker.store import tables, workers
from worker.store.database import Database


def register(database: Database, worker_id: str) -> None:
    with database.write() as c:
        workers.register(c, worker_id=worker_id, host="h", pid=1, device="cpu", slots=1, threads=2)


def seen_before(database: Database, worker_id: str, ago: timedelta) -> None:
    with database.write() as c:
        mine = tables.workers.c.id == worker_id
        c.execute(update(tables.workers).where(mine).values(last_seen_at=datetime.now(UTC) - ago))


def recent(database: Database) -> list[str]:
    with database.read() as c:
        return [worker.id for worker in workers.recent(c, seconds=10)]


def test_a_worker_is_there_until_it_is_silent_or_stops(database: Database) -> None:
    for worker_id in ("w-1", "w-2", "w-3"):
        register(database, worker_id)
    assert recent(database) == ["w-1", "w-2", "w-3"]
    seen_before(database, "w-1", timedelta(seconds=11))
    with database.write() as c:
        workers.beat(c, "w-2", "stopped")
    assert recent(database) == ["w-3"]
    with database.write() as c:
        workers.beat(c, "w-1", "active")
        (again, _) = workers.recent(c, seconds=10)
    assert (again.id, again.heartbeat) == ("w-1", 2)


def test_workers_that_were_not_seen_for_a_day_are_forgotten(database: Database) -> None:
    register(database, "w-1")
    seen_before(database, "w-1", timedelta(days=2))
    register(database, "w-2")
    with database.read() as c:
        assert [row.id for row in c.execute(tables.workers.select())] == ["w-2"]
