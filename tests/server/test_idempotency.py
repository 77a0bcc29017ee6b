"""A request with an `Idempotency-Key` creates once, however often and however it is sent."""

from __future__ import annotations

import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select, update

from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server
from worker.store.tables import idempotency_keys, jobs

BODY = json.dumps({"spec": SPEC}).encode()
JSON = {"Content-Type": "application/json"}


def _ids(seed: Seed) -> list[str]:
    with seed.database.read() as connection:
        return list(connection.execute(select(jobs.c.id)).scalars())


@pytest.mark.anyio
async def test_the_same_request_gets_the_same_answer(http: httpx.AsyncClient, seed: Seed) -> None:
    headers = JSON | {"Idempotency-Key": "k-1"}
    first = await http.post("/v1/jobs", content=BODY, headers=headers)
    await http.post(f"{first.headers['location']}/cancel")
    again = await http.post("/v1/jobs", content=BODY, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    for name in ("location", "etag", "content-type"):
        assert again.headers[name] == first.headers[name]
    assert len(_ids(seed)) == 1


@pytest.mark.anyio
async def test_another_request_with_the_key_is_refused(http: httpx.AsyncClient, seed: Seed) -> None:
    headers = JSON | {"Idempotency-Key": "k-1"}
    await http.post("/v1/jobs", content=BODY, headers=headers)
    for path, body in (("/v1/jobs", BODY + b" "), ("/v1/jobs", json.dumps({"spec": SPEC, "name": "b"}).encode())):
        response = await http.post(path, content=body, headers=headers)
        assert response.status_code == 422
        assert assert_problem(response)["code"] == "idempotency_key_reused"
    other = await http.post("/v1/jobs", content=BODY, headers=JSON | {"Idempotency-Key": "k-2"})
    assert other.status_code == 201
    assert len(_ids(seed)) == 2


@pytest.mark.anyio
async def test_a_refused_request_does_not_use_up_its_key(http: httpx.AsyncClient, seed: Seed) -> None:
    headers = {"Idempotency-Key": "k-1"}
    there = (await http.post("/v1/jobs", json={"spec": SPEC})).json()["id"]
    refused = await http.post("/v1/jobs", json={"spec": SPEC, "on_duplicate": "reject"}, headers=headers)
    assert (refused.status_code, refused.json()["job_id"]) == (409, there)
    mended = await http.post("/v1/jobs", json={"spec": SPEC}, headers=headers)
    assert mended.status_code == 201
    assert len(_ids(seed)) == 2


@pytest.mark.anyio
async def test_a_key_is_forgotten_after_a_day(http: httpx.AsyncClient, seed: Seed) -> None:
    headers = JSON | {"Idempotency-Key": "k-1"}
    first = await http.post("/v1/jobs", content=BODY, headers=headers)
    with seed.database.write() as connection:
        expires_at = connection.execute(select(idempotency_keys.c.expires_at)).scalar_one()
        assert expires_at - seed.get(first.json()["id"]).created_at == pytest.approx(
            timedelta(hours=24), abs=timedelta(seconds=5)
        )
        connection.execute(update(idempotency_keys).values(expires_at=expires_at - timedelta(hours=24, seconds=5)))
    again = await http.post("/v1/jobs", content=BODY, headers=headers)
    assert again.json()["id"] != first.json()["id"]


@pytest.mark.anyio
@pytest.mark.parametrize("key", [b"", b"a b", "ä".encode(), b"x" * 256])
async def test_a_bad_key_is_named(http: httpx.AsyncClient, seed: Seed, key: bytes) -> None:
    headers = [(b"Content-Type", b"application/json"), (b"Idempotency-Key", key)]
    response = await http.post("/v1/jobs", content=BODY, headers=headers)
    assert response.status_code == 422
    [item] = assert_problem(response)["errors"]
    assert item["parameter"] == "Idempotency-Key"
    assert _ids(seed) == []


def test_a_storm_of_cut_requests_creates_one_job(server: Server, seed: Seed) -> None:
    """Fifty clients send the same request at once; most are gone before, while or just after it is answered."""
    request = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: storm\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    cuts = random.Random(0)

    def send(number: int) -> bytes:
        with socket.create_connection((server.host, server.port), timeout=20) as connection:
            # Every fifth breaks off in the middle of the request, the others after it.
            connection.sendall(request[: cuts.randrange(len(request))] if number % 5 == 0 else request)
            if number % 5 in (0, 1, 2):
                return b""
            connection.settimeout(cuts.uniform(0.001, 0.2) if number % 5 == 3 else 20)
            try:
                return connection.recv(65536)
            except TimeoutError:
                return b""

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for answer in pool.map(send, range(50)) if answer]
    assert {answer.partition(b"\r\n")[0] for answer in answers} <= {b"HTTP/1.1 201 Created"}
    assert len(answers) >= 10
    with httpx.Client(base_url=server.url) as http:
        last = http.post("/v1/jobs", content=BODY, headers=JSON | {"Idempotency-Key": "storm"})
    deadline = time.monotonic() + 5
    while not _ids(seed) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _ids(seed) == [last.json()["id"]]
    assert all(last.json()["id"].encode() in answer for answer in answers)
