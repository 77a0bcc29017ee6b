"""Connections and transactions on SQLite (one host) or PostgreSQL."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

BUSY_SECONDS = 10
VERSIONS = Path(__file__).with_name("migrations") / "versions"
MIGRATION_LOCK = 7_305_108
"""Key of the PostgreSQL advisory lock that lets one process migrate at a time; an arbitrary constant."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or stayed locked for too long; the transaction was not committed."""


class Database:
    """One database, by URL: `sqlite:///path` or `postgresql://…`.

    Writes on SQLite begin with BEGIN IMMEDIATE (a deferred transaction that reads first fails with "locked" when it
    comes to write) under one lock for this process, because SQLite's own waiting is unfair.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.url = parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed
        self._write_lock = threading.Lock() if self._sqlite else None
        self._reader = _engine(self.url, "BEGIN")
        self._writer = _engine(self.url, "BEGIN IMMEDIATE") if self._sqlite else self._reader

    @property
    def _sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction for reading.

        Raises:
            DatabaseUnavailable: the database is away or locked.
        """
        with _unavailable(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction for writing: committed when the block ends, rolled back when it raises.

        Raises:
            DatabaseUnavailable: the database is away or locked.
        """
        if self._write_lock is None:
            with _unavailable(), self._writer.begin() as connection:
                yield connection
            return
        if not self._write_lock.acquire(timeout=BUSY_SECONDS):
            raise DatabaseUnavailable(f"no write transaction could begin within {BUSY_SECONDS} s")
        try:
            with _unavailable(), self._writer.begin() as connection:
                yield connection
        finally:
            self._write_lock.release()

    def migrate(self) -> None:
        """Bring the schema to the newest version; several processes may do so at once.

        Raises:
            DatabaseUnavailable: the database is away or locked.
        """
        if self._is_newest():
            return
        if self._sqlite:
            path = Path(str(self.url.database))
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(f"{path}.migrate.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _enable_wal(path)
                self._upgrade()
        else:
            self._upgrade()

    def _is_newest(self) -> bool:
        """Whether the schema is that of the newest migration, whose file's name begins with its number."""
        if self._sqlite and not Path(str(self.url.database)).exists():
            return False
        newest = max(path.name for path in VERSIONS.glob("[0-9]*.py")).partition("_")[0]
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return False
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none() == newest

    def _upgrade(self) -> None:
        # Loaded where it has something to do: it takes 10 MB, in API and workers for as long as they live.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", "worker.store:migrations")
        with self.write() as connection:
            if not self._sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Close all connections; the object can still be used and opens new ones."""
        self._reader.dispose()
        self._writer.dispose()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        cause = error.orig if isinstance(error, (OperationalError, InterfaceError)) else error
        raise DatabaseUnavailable(f"the database cannot be used: {str(cause).strip()}") from error


def _engine(url: URL, begin: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        seconds = BUSY_SECONDS * 1000
        return create_engine(
            url,
            json_deserializer=from_json,
            pool_size=10,
            max_overflow=40,
            pool_timeout=BUSY_SECONDS,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 3,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": seconds,
                "options": f"-c statement_timeout={seconds} -c lock_timeout={seconds}",
            },
        )
    engine = create_engine(url, json_deserializer=from_json, pool_size=10, max_overflow=40, pool_timeout=BUSY_SECONDS)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3's own implicit BEGIN would be deferred
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA synchronous = FULL")  # what was answered is on the disk, as with PostgreSQL
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _enable_wal(path: Path) -> None:
    """Write-ahead logging is a property of the file: readers then never wait for the writer."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
