"""A real PostgreSQL for the tests that run on both databases."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

DEBIAN_BINARIES = "/usr/lib/postgresql"


def find_postgresql() -> Path:
    """The folder of initdb and postgres."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path(DEBIAN_BINARIES).glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    if not versions:
        pytest.fail("PostgreSQL is not installed: `apt-get install postgresql`, or put initdb and postgres on the PATH")
    return versions[-1].parent


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, on a Unix socket; its superuser is in the URL, without a password."""
    binaries = find_postgresql()
    folder = Path(tempfile.mkdtemp(prefix="epochd-pg-"))
    # initdb refuses root, so that root becomes somebody else.
    user, group = ("nobody", "nogroup") if os.geteuid() == 0 else (None, None)
    if user is not None:
        shutil.chown(folder, user, group)
    data = folder / "data"
    initialize = [str(binaries / "initdb"), "-D", str(data), "-U", "epochd", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initialize, cwd=folder, check=True, stdout=subprocess.DEVNULL, user=user, group=group)
    options = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
    settings = [f"-c{name}={value}" for name, value in options.items()]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(data), *settings],
            cwd=folder,
            stdout=log,
            stderr=log,
            user=user,
            group=group,
        )
    url = f"postgresql://epochd@/postgres?host={folder}"
    try:
        _wait_until_ready(url, folder / "log")
        yield url
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    """URL of an empty database."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test")
    yield postgresql.replace("/postgres?", "/test?")
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("DROP DATABASE test WITH (FORCE)")


def _wait_until_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {error}\n{log.read_text()}")
        time.sleep(0.05)
