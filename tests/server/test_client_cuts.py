"""What the clients do on a bad network: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server.client import AsyncClient, Client, Unreachable
from tests.server.cutting import cutting
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server
from worker.jobs import Job, JobStatus
from worker.store import events, jobs, workers

CONTENT = random.Random(0).randbytes(2_000_000)


def once(part: bytes, cuts: Iterator[int]) -> Callable[[bytes], int | None]:
    """Cut the answers of requests that contain `part` after so many bytes each, as long as there are such numbers."""
    return lambda head: next(cuts, None) if part in head else None


def numbers(count: int, most: int) -> Iterator[int]:
    chosen = random.Random(1)
    return (chosen.randrange(1, most) for _ in range(count))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comes back at once after a cut."""
    monkeypatch.setattr("server.client.following.RECONNECT_SECONDS", 0.0005)


@pytest.mark.usefixtures("quick")
def test_a_download_that_is_cut_a_hundred_times_is_the_same_file(server: Server, seed: Seed, tmp_path: Path) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT})
    target = tmp_path / "model.safetensors"
    cuts = numbers(100, 30_000)
    with cutting(server, once(b"/artifacts/", cuts)) as cut, Client(cut.url) as client:
        artifact = client.download(job.id, "model.safetensors", target)
    assert next(cuts, None) is None
    assert hashlib.sha256(target.read_bytes()).hexdigest() == artifact.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.safetensors"]


@pytest.mark.anyio
@pytest.mark.usefixtures("quick")
async def test_so_is_one_of_the_client_for_async_code(server: Server, seed: Seed, tmp_path: Path) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT})
    target = tmp_path / "model.safetensors"
    with cutting(server, once(b"/artifacts/", numbers(20, 90_000))) as cut:
        async with AsyncClient(cut.url) as client:
            await client.download(job.id, "model.safetensors", target)
    assert target.read_bytes() == CONTENT


def write_and_end(seed: Seed, job: Job, count: int) -> list[events.Event]:
    for number in range(count):
        with seed.database.write() as connection:
            events.append(connection, job.id, "job.warning", {"number": number}, attempt=1)
    with seed.database.write() as connection:
        jobs.move(connection, jobs.lock(connection, job.id), JobStatus.CANCELLED, reason="cancelled")
    with seed.database.read() as connection:
        return events.after(connection, job.id, 0, 10_000)


@pytest.mark.usefixtures("quick")
def test_events_are_followed_through_cuts_to_the_end(server: Server, seed: Seed) -> None:
    job = seed.running()
    cuts = numbers(60, 2000)
    with cutting(server, once(b"/events", cuts)) as cut, Client(cut.url) as client, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_and_end, seed, job, 150)
        received = [(event.id, event.type, event.data) for event in client.follow_events(job.id)]
        assert received == [(event.id, event.type, event.data) for event in writing.result()]


@pytest.mark.anyio
@pytest.mark.usefixtures("quick")
async def test_so_are_they_by_async_code(server: Server, seed: Seed) -> None:
    job = seed.running()
    with cutting(server, once(b"/events", numbers(20, 2000))) as cut, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_and_end, seed, job, 50)
        async with AsyncClient(cut.url) as client:
            received = [event.id async for event in client.follow_events(job.id, types=["job.warning"])]
        assert received == [event.id for event in writing.result() if event.type == "job.warning"]


def test_the_events_of_all_jobs_are_followed_from_a_number_on(server: Server, seed: Seed) -> None:
    first, second = seed.queued(), seed.queued()
    with Client(server.url) as client:
        following = client.follow_all_events(after=0, types=["job.status"])
        assert [next(following).job_id for _ in range(2)] == [first.id, second.id]
        third = seed.queued()
        event = next(following)
        assert (event.job_id, event.data["to"]) == (third.id, "queued")
        assert next(client.follow_all_events(after=event.number - 1)) == event


def test_one_submission_whose_answers_are_lost_is_one_job(server: Server, seed: Seed) -> None:
    cuts = iter([1, 40])
    with cutting(server, once(b"POST /v1/jobs ", cuts)) as cut, Client(cut.url) as client:
        job = client.submit(SPEC)
        assert next(cuts, None) is None
        assert client.submit(SPEC).id != job.id
    with seed.database.read() as connection:
        assert len(jobs.page(connection, limit=10)) == 2


def test_what_fails_again_and_again_is_told(server: Server, seed: Seed) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT})
    with cutting(server, lambda _: 1) as cut, Client(cut.url) as client:
        with pytest.raises(Unreachable):
            client.submit(SPEC)
        with pytest.raises(Unreachable):
            next(client.follow_events(job.id, patience_seconds=0.2))
        with pytest.raises(Unreachable):
            next(client.wait(job.id, patience_seconds=0.2))


@pytest.mark.anyio
async def test_the_client_for_async_code_does_the_same(server: Server, seed: Seed) -> None:
    running = seed.running()
    seed.points(running, {"val_loss": [0.5, 0.25]})
    seed.log(running, "epoch 1\n")
    with seed.database.write() as connection:
        workers.register(connection, worker_id="w-1", host="lab", pid=1, device="cpu", slots=1, threads=1)
    async with AsyncClient(server.url) as client:
        job = await client.submit(SPEC, name="first", tags=["a"])
        assert [found.id async for found in client.list(tags=["a"])] == [job.id]
        assert (await client.change(job.id, priority=3)).priority == 3
        assert (await client.pause(job.id)).status == "paused"
        assert (await client.resume(job.id)).status == "queued"
        states: list[Any] = []
        async for state in client.wait(job.id):
            states.append(state.status)
            if len(states) == 1:
                await client.cancel(job.id)
        assert states == ["queued", "cancelled"]
        assert (await client.retry(job.id)).status == "queued"
        [result] = await client.batch("cancel", [job.id])
        assert result.job is not None
        assert result.job.terminal
        assert [point.value async for point in client.metrics(running.id)] == [0.5, 0.25]
        assert [attempt.worker for attempt in await client.attempts(running.id)] == ["w-1"]
        assert [(worker.id, worker.jobs) for worker in await client.workers()] == [("w-1", (running.id,))]
        assert await client.logs(running.id) == "epoch 1\n"
        assert [event.type async for event in client.events(job.id, after=4)] == ["job.status"] * 3
        await client.delete(job.id)
        assert [found.id async for found in client.list()] == [running.id]
