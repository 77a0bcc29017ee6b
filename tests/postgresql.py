"""A real PostgreSQL server of our own, which can be stopped, killed and frozen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.integration.processes import descendants

DEBIAN_BINARIES = "/usr/lib/postgresql"
START_SECONDS = 30


class PostgreSQL:
    """A server with its data in a folder of its own, on a Unix socket there; `epochd` is its superuser."""

    def __init__(self) -> None:
        self._binaries = find_binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="epochd-pg-"))
        # initdb refuses root, so that root becomes somebody else.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self.url = f"postgresql://epochd@/postgres?host={self._folder}"
        self._run("initdb", "-U", "epochd", "-A", "trust", "-E", "UTF8", "--no-sync").wait()
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = {"listen_addresses": "", "unix_socket_directories": str(self._folder), "fsync": "off"}
        self._server = self._run("postgres", *(f"-c{name}={value}" for name, value in options.items()))
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    pytest.fail(f"PostgreSQL did not start: {error}\n{(self._folder / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server: SIGTERM waits for its clients, SIGINT throws them out, SIGQUIT is a crash."""
        self._server.send_signal(how)
        self._server.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Neither it nor a process of its clients moves."""
        members = [self._server.pid, *descendants(self._server.pid)]
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(members):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """URL of a database that is there meanwhile."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE test")
        yield self.url.replace("/postgres?", "/test?")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP DATABASE test WITH (FORCE)")

    def remove(self) -> None:
        self.stop(signal.SIGINT)
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments]
        with (self._folder / "log").open("a") as log:
            return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, user=self._user)


def find_binaries() -> Path:
    """The folder of initdb and postgres."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path(DEBIAN_BINARIES).glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    if not versions:
        pytest.fail("PostgreSQL is not installed: `apt-get install postgresql`, or put initdb and postgres on the PATH")
    return versions[-1].parent
