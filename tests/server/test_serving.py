"""Over real sockets: large, slow and broken requests, and the server that goes on serving."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.app import create_app
from server.client import Client, Unreachable
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC
from tests.server.serving import Server, serving
from worker.settings import Settings


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def _answer(connection: socket.socket) -> bytes:
    received = b""
    while block := connection.recv(65536):
        received += block
        head, separator, body = received.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if separator and len(body) >= length:
            break
    return received


def test_a_body_of_60_mb_gets_its_413(http: httpx.Client) -> None:
    body = json.dumps({"spec": SPEC, "name": "x" * 60_000_000}).encode()
    for _ in range(3):
        response = http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 413
        assert "1048576 bytes" in assert_problem(response)["detail"]
    assert http.get("/v1/jobs").json()["data"] == []


def test_a_chunked_body_of_60_mb_gets_its_413(http: httpx.Client) -> None:
    response = http.post(
        "/v1/jobs", content=(b"x" * 100_000 for _ in range(600)), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert_problem(response)
    assert http.get("/healthz").status_code == 200


def test_others_are_served_while_a_body_comes_slowly(server: Server, http: httpx.Client) -> None:
    body = json.dumps({"spec": SPEC}).encode()
    with socket.create_connection((server.host, server.port), timeout=20) as slow:
        slow.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for start in range(0, len(body), 50):
            chunk = body[start : start + 50]
            slow.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            assert http.get("/healthz").status_code == 200
        slow.sendall(b"0\r\n\r\n")
        assert _answer(slow).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET @evil HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_a_4xx_and_harms_nobody(server: Server, http: httpx.Client, request_bytes: bytes) -> None:
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(request_bytes)
        answer = _answer(connection)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 431 "))
    assert http.get("/healthz").status_code == 200


def test_the_api_alone_is_one_process_that_ends_when_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "EPOCHD_DATA_DIR": str(tmp_path),
        "EPOCHD_REDIS_URL": "redis://127.0.0.1:1/0",
        "EPOCHD_PORT": str(port),
        "EPOCHD_AUTH": "off",
    }
    with subprocess.Popen([sys.executable, "-m", "server"], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            with Client(f"http://127.0.0.1:{port}") as client:
                while not _answers(client):
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                job = client.submit(SPEC)
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) in (0, -signal.SIGTERM)
        finally:
            process.kill()
    assert (tmp_path / "epochd.db").exists()
    assert job.status == "queued"


def _answers(client: Client) -> bool:
    try:
        return not list(client.list())
    except Unreachable:
        return False


def test_a_client_that_leaves_in_the_middle_harms_nobody(server: Server, http: httpx.Client) -> None:
    for _ in range(5):
        with socket.create_connection((server.host, server.port), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
    assert http.post("/v1/jobs", json={"spec": SPEC}).status_code == 201


def test_a_server_that_is_told_to_stop_does_not_wait_for_its_next_tick(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.__main__.TICK_SECONDS", 3600)
    with serving(create_app(settings)) as server:  # which fails when the end takes too long
        assert httpx.get(f"{server.url}/healthz").is_success
