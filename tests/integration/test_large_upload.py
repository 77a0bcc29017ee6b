"""A gigabyte over a connection that breaks, and what it costs the API."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.client import Client
from server.client.uploading import PART_BYTES
from tests.integration.processes import wait_until
from tests.server.cutting import cutting
from tests.server.serving import Server

NUM_BYTES = 2**30
NUM_CUTS = 20


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Server, int]]:
    """The API in a process of its own, and its id."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    environment = {
        "EPOCHD_DATA_DIR": str(tmp_path / "data"),
        "EPOCHD_PORT": str(port),
        "EPOCHD_AUTH": "off",
        "EPOCHD_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    process = subprocess.Popen([sys.executable, "-m", "server"], env={**os.environ, **environment})
    server = Server("127.0.0.1", port)
    try:
        wait_until(lambda: answers(server), seconds=60)
        yield server, process.pid
    finally:
        process.terminate()
        process.wait()


def answers(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/healthz").is_success
    except httpx.TransportError:
        return False


def memory(pid: int, field: str) -> int:
    """Bytes: `VmRSS` is now, `VmHWM` was the most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@pytest.mark.slow
def test_a_gigabyte_that_is_cut_twenty_times(api: tuple[Server, int], tmp_path: Path) -> None:
    server, pid = api
    small, large = tmp_path / "small.zip", tmp_path / "large.zip"
    small.write_bytes(b"to load what an upload needs")
    block = random.Random(0).randbytes(2**26)
    with large.open("wb") as file:
        for _ in range(NUM_BYTES // len(block)):
            file.write(block)
    with Client(server.url) as client:
        client.datasets.upload(small)
    before = memory(pid, "VmRSS")
    num_parts = -(-NUM_BYTES // PART_BYTES)
    sent = 0

    def cut(head: bytes) -> int | None:
        nonlocal sent
        if b"PATCH " not in head:
            return None
        sent += 1
        # Every sixth part is cut on its way, or before its answer has come.
        return sent // 6 % 2 * 20 if sent % 6 == 0 and sent <= 6 * NUM_CUTS else None

    with cutting(server, cut) as proxy, Client(proxy.url) as client:
        assert client.datasets.upload(large).complete
    assert sent >= 6 * NUM_CUTS
    assert sent - num_parts <= NUM_CUTS
    assert memory(pid, "VmHWM") - before <= 64 * 2**20
