from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text

from cnn.spec import TrainingSpec
from worker.store import dataset_tables, jobs, tables, webhook_tables  # noqa: F401  (in the metadata, too)
from worker.store.database import Database, DatabaseUnavailable


def test_migrations_give_the_tables_of_the_metadata(database: Database) -> None:
    with database.write() as c:
        assert compare_metadata(MigrationContext.configure(c, opts={"compare_type": True}), tables.metadata) == []
        # What the comparison does not look at: the conditions.
        expected = {c.name for c in tables.jobs.constraints if type(c).__name__ == "CheckConstraint"}
        assert {check["name"] for check in inspect(c).get_check_constraints("jobs")} == expected


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.migrate, databases))
    with databases[0].read() as c:
        assert c.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
        assert c.execute(select(tables.jobs)).all() == []
    for database in databases:
        database.close()


def test_a_failing_block_writes_nothing(database: Database, spec: TrainingSpec) -> None:
    def fail() -> None:
        with database.write() as c:
            jobs.create(c, spec=spec, name=None)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with database.read() as c:
        assert jobs.page(c, limit=10) == []


def test_a_status_outside_the_list_is_refused(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        job = jobs.create(c, spec=spec, name=None)
    with pytest.raises(Exception, match="ck_jobs_status"), database.write() as c:
        c.execute(tables.jobs.update().where(tables.jobs.c.id == job.id).values(status="done"))


def test_concurrent_writers_that_read_first_do_not_collide(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        job = jobs.create(c, spec=spec, name=None)

    def raise_priority(_: int) -> None:
        with database.write() as c:
            seen = jobs.lock(c, job.id)
            c.execute(tables.jobs.update().where(tables.jobs.c.id == job.id).values(priority=seen.priority + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(raise_priority, range(80)))
    with database.read() as c:
        assert c.execute(select(tables.jobs.c.priority)).scalar_one() == 80


def test_sqlite_readers_do_not_wait_for_a_writer(tmp_path: Path, spec: TrainingSpec) -> None:
    database = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    database.migrate()
    with database.write() as c:
        jobs.create(c, spec=spec, name=None)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: _count(database)).result(timeout=5) == 0
    assert _count(database) == 1
    database.close()


def test_sqlite_is_set_up_for_durability_and_several_processes(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    database.migrate()
    with database.write() as c:
        names = ("journal_mode", "busy_timeout", "synchronous", "foreign_keys")
        assert [c.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names] == ["wal", 10000, 2, 1]
    database.close()


def test_sqlite_that_another_process_keeps_locked_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.store.database.BUSY_SECONDS", 0.1)
    path = tmp_path / "epochd.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="locked"), database.write():
        pass
    other.execute("ROLLBACK")
    other.close()
    with database.write():
        pass
    database.close()


def test_a_write_lock_that_is_held_too_long_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.store.database.BUSY_SECONDS", 0.1)
    database = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    database.migrate()
    refused = threading.Event()

    def write() -> None:
        with pytest.raises(DatabaseUnavailable), database.write():
            pass
        refused.set()

    with database.write():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert refused.is_set()
    database.close()


def test_a_postgresql_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"postgresql://epochd@/test?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable, match="No such file"), database.read():
        pass
    database.close()


def _count(database: Database) -> int:
    with database.read() as c:
        return len(jobs.page(c, limit=10))
