"""Long polls: an answer that waits until there is something new to say."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from fastapi import FastAPI

from server.waiting import MAX_SECONDS, wait_seconds
from tests.server.seeding import Seed
from worker.jobs import Job
from worker.store import attempts, events, intents

pytestmark = pytest.mark.anyio


async def _poll(http: httpx.AsyncClient, job: Job, etag: str, seconds: int = 20) -> httpx.Response:
    headers = {"If-None-Match": etag, "Prefer": f"wait={seconds}"}
    return await http.get(f"/v1/jobs/{job.id}", headers=headers, timeout=30)


async def _etag(http: httpx.AsyncClient, job: Job) -> str:
    return str((await http.get(f"/v1/jobs/{job.id}")).headers["etag"])


async def _listening(app: FastAPI, count: int) -> None:
    deadline = time.monotonic() + 5
    while app.state.services.tailer.num_listeners != count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_the_answer_comes_when_the_job_changes(app: FastAPI, http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    polls = [asyncio.create_task(_poll(http, job, await _etag(http, job))) for _ in range(3)]
    await _listening(app, 3)
    begun = time.monotonic()
    with seed.database.write() as connection:
        intents.request_pause(connection, job.id)
    for poll in polls:
        response = await poll
        assert (response.status_code, response.json()["intent"]) == (200, "pause")
        assert response.headers["preference-applied"] == "wait=20"
    assert time.monotonic() - begun < 5
    await _listening(app, 0)


async def test_a_waiting_job_is_told_when_it_moves_up(app: FastAPI, http: httpx.AsyncClient, seed: Seed) -> None:
    first, second = seed.queued(), seed.queued()
    poll = asyncio.create_task(_poll(http, second, await _etag(http, second)))
    await _listening(app, 1)
    with seed.database.write() as connection:
        attempts.claim(connection, worker_id="w-1", device="cpu", job_id=first.id)
    assert (await poll).json()["queue"]["position"] == 1


async def test_nothing_new_is_304_when_the_time_is_over(app: FastAPI, http: httpx.AsyncClient, seed: Seed) -> None:
    job, other = seed.running(), seed.running()
    etag = await _etag(http, job)
    poll = asyncio.create_task(_poll(http, job, etag, seconds=1))
    await _listening(app, 1)
    begun = time.monotonic()
    with seed.database.write() as connection:
        events.append(connection, other.id, "job.warning", {}, attempt=1)
    response = await poll
    assert time.monotonic() - begun > 0.5
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
    assert response.headers["preference-applied"] == "wait=1"


async def test_who_knows_nothing_or_something_old_does_not_wait(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    begun = time.monotonic()
    for headers in ({}, {"If-None-Match": '"old"'}):
        response = await http.get(f"/v1/jobs/{job.id}", headers={**headers, "Prefer": "wait=20"})
        assert response.status_code == 200
    unknown = await http.get(
        "/v1/jobs/job_00000000000000000000000000", headers={"If-None-Match": "*", "Prefer": "wait=9"}
    )
    assert unknown.status_code == 404
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("wait=30", 30),
        ('respond-async, WAIT="7"', 7),
        ("handling=lenient; wait = 5", 5),
        ("wait=100000", MAX_SECONDS),
        ("wait", 0),
        ("wait=-1", 0),
        ("await=3", 0),
        ("wait=soon", 0),
    ],
)
async def test_a_preference_that_is_not_understood_is_ignored(prefer: str | None, seconds: float) -> None:
    assert wait_seconds(prefer) == seconds
