from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from cnn.spec import TrainingSpec
from server.app import create_app
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed
from worker.jobs import JobStatus
from worker.log_format import JsonFormatter
from worker.settings import Settings
from worker.store import attempts, deliveries, jobs, keys, operations, tables, webhook_tables, webhooks, workers
from worker.store.deliveries import DeliveryStatus
from worker.store.keys import Scope
from worker.store.webhooks import EventType
from worker.store.workers import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def register(seed: Seed) -> Callable[..., None]:
    def add(worker_id: str, *, slots: int = 1, silent_for: float = 0.0) -> None:
        with seed.database.write() as c:
            workers.register(c, worker_id=worker_id, host="h", pid=1, device="cpu", slots=slots, threads=1)
            seen_at = datetime.now(UTC) - timedelta(seconds=silent_for)
            table = tables.workers
            c.execute(update(table).where(table.c.id == worker_id).values(last_seen_at=seen_at))

    return add


def queued_since(seed: Seed, seconds: float) -> None:
    with seed.database.write() as c:
        c.execute(update(tables.jobs).values(queued_at=datetime.now(UTC) - timedelta(seconds=seconds)))


async def values(http: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """The samples of `/metrics` by name and label values."""
    families = text_string_to_metric_families((await http.get("/metrics")).text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


async def test_workers_are_listed_with_what_they_train(
    http: httpx.AsyncClient, seed: Seed, register: Callable[..., None]
) -> None:
    register("w-1", slots=2)
    register("w-2", silent_for=60)
    job = seed.running()
    found = {worker["id"]: worker for worker in (await http.get("/v1/workers")).json()["data"]}
    assert (found["w-1"]["status"], found["w-1"]["jobs"], found["w-1"]["num_jobs"]) == ("active", [job.id], 1)
    assert (found["w-2"]["status"], found["w-2"]["jobs"], found["w-2"]["num_jobs"]) == ("lost", [], 0)


async def test_the_jobs_of_others_are_counted_but_not_named(
    settings: Settings, seed: Seed, register: Callable[..., None]
) -> None:
    register("w-1")
    seed.running()
    with seed.database.write() as c:
        headers = {"Authorization": f"Bearer {keys.create(c, name='a', scope=Scope.READ)[1]}"}
    app = create_app(settings.model_copy(update={"auth": "keys"}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client,
    ):
        (worker,) = (await client.get("/v1/workers")).json()["data"]
    assert (worker["jobs"], worker["num_jobs"]) == ([], 1)


async def test_the_queue_tells_what_waits(http: httpx.AsyncClient, seed: Seed, register: Callable[..., None]) -> None:
    register("w-1", slots=3)
    register("w-2", slots=5, silent_for=60)
    seed.running()
    job = seed.queued()
    (queue,) = (await http.get("/v1/queues")).json()["data"]
    counts = {name: queue[name] for name in ("name", "queued", "claimable", "running", "paused", "slots", "bells")}
    assert counts == {
        "name": "jobs",
        "queued": 1,
        "claimable": 1,
        "running": 1,
        "paused": 0,
        "slots": 3,
        "bells": None,
    }
    assert datetime.fromisoformat(queue["oldest_queued_at"]) == job.queued_at


def readiness(response: httpx.Response) -> str | None:
    """Why no worker claims; None when one does."""
    problems = {item["code"]: item["message"] for item in response.json().get("errors", ())}
    return problems.get("worker_unavailable")


async def test_ready_means_that_a_worker_claims(
    http: httpx.AsyncClient, seed: Seed, register: Callable[..., None]
) -> None:
    async def reason() -> str | None:
        response = await http.get("/readyz")
        assert assert_problem(response)["errors"][-1]["code"] == "queue_unavailable"
        return readiness(response)

    register("w-0", silent_for=11)
    assert "expected an active worker seen within 10 s" in str(await reason())
    register("w-1")
    assert await reason() is None
    seed.queued()
    queued_since(seed, 59)
    assert await reason() is None
    queued_since(seed, 61)
    assert "expected w-1 to claim jobs" in str(await reason())
    register("w-2", slots=0)
    assert await reason() is None, "the other worker is busy, so a job may well wait"
    with seed.database.write() as c:
        assert attempts.claim(c, worker_id="w-1", device="cpu") is not None
    seed.queued()
    queued_since(seed, 61)
    assert await reason() is None


async def test_a_job_that_no_worker_could_train_does_not_count_as_passed_over(
    seed: Seed, register: Callable[..., None]
) -> None:
    register("w-1")
    seed.queued()
    queued_since(seed, 100)
    with seed.database.write() as c:
        (worker,) = workers.known(c)
        assert operations.passed_over(c, worker, seconds=60)
        c.execute(update(tables.jobs).values(wanted_device="cuda"))
        assert not operations.passed_over(c, worker, seconds=60)
        gpu = Worker(**{**vars(worker), "device": "cuda"})
        assert operations.passed_over(c, gpu, seconds=60)
        c.execute(update(tables.jobs).values(not_before=datetime.now(UTC) - timedelta(seconds=30)))
        assert not operations.passed_over(c, gpu, seconds=60), "its backoff ended half a minute ago"


async def test_a_job_on_several_gpus_is_passed_over_by_workers_that_give_it_as_many(seed: Seed) -> None:
    with seed.database.write() as c:
        for name, gpus in (("w-1", 1), ("w-2", 2)):
            workers.register(c, worker_id=name, host="h", pid=1, device="cuda", slots=1, threads=1, gpus_per_slot=gpus)
        jobs.create(c, spec=TrainingSpec.model_validate({**SPEC, "training": {"devices": 2}}), name=None)
    queued_since(seed, 100)
    with seed.database.read() as c:
        found = {worker.id: operations.passed_over(c, worker, seconds=60) for worker in workers.known(c)}
    assert found == {"w-1": False, "w-2": True}


async def test_metrics_count_requests_jobs_and_workers(
    http: httpx.AsyncClient, seed: Seed, register: Callable[..., None]
) -> None:
    register("w-1", slots=2)
    seed.failed()
    await http.post("/v1/jobs", json={"spec": SPEC})
    await http.get(f"/v1/jobs/{seed.running().id}")
    await http.get("/v1/jobs/job_nobody")
    await http.get("/no/such/path")
    queued_since(seed, 100)
    found = await values(http)
    requests = "epochd_http_requests_total"
    assert found[requests, "POST", "/v1/jobs", "2xx"] == 1
    assert found[requests, "GET", "/v1/jobs/{job_id}", "2xx"] == 1
    assert found[requests, "GET", "/v1/jobs/{job_id}", "4xx"] == 1
    assert found[requests, "GET", "other", "4xx"] == 1
    assert found["epochd_http_request_seconds_count", "GET", "/v1/jobs/{job_id}"] == 2
    counts = {status: found["epochd_jobs", status] for status in JobStatus}
    assert counts == {"queued": 1, "running": 1, "paused": 0, "succeeded": 0, "failed": 1, "cancelled": 0}
    assert (found["epochd_workers",], found["epochd_slots",]) == (1, 2)
    assert (found["epochd_database_up",], found["epochd_queue_up",]) == (1, 0)
    assert found["epochd_oldest_queued_seconds",] == pytest.approx(100, abs=10)


async def test_metrics_tell_how_deliveries_get_on(http: httpx.AsyncClient, seed: Seed) -> None:
    table, now = webhook_tables.deliveries, datetime.now(UTC)
    ages = {"pending": [100, 50], "delivered": [500], "failed": [400, 300, 200]}
    with seed.database.write() as c:
        webhook, _ = webhooks.create(c, owner_id=None, url="https://example.com/hooks", types=tuple(EventType))
        for status, of_status in ages.items():
            times = (
                {"due_at": now + timedelta(hours=1)} if status == "pending" else {"due_at": None, "finished_at": now}
            )
            for age in of_status:
                changed = update(table).where(table.c.id == deliveries.add_test(c, webhook).id)
                c.execute(changed.values(status=status, created_at=now - timedelta(seconds=age), **times))
    found = await values(http)
    assert {status: found["epochd_deliveries", status] for status in DeliveryStatus} == {
        status: len(of_status) for status, of_status in ages.items()
    }
    assert found["epochd_oldest_delivery_seconds",] == pytest.approx(100, abs=10)
    with seed.database.write() as c:
        webhooks.disable(c, webhook.id, "nobody takes anything there")
    found = await values(http)
    assert (found["epochd_deliveries", "pending"], found["epochd_oldest_delivery_seconds",]) == (2, 0)


async def test_clients_cannot_make_labels(http: httpx.AsyncClient) -> None:
    async def series_after(first: int) -> set[tuple[str, ...]]:
        for number in range(first, first + 5):
            await http.request(f"X{number}", f"/{number}")
            await http.get(f"/v1/jobs/{number}")
        return set(await values(http))

    await series_after(0)
    assert await series_after(5) == await series_after(10)


async def test_metrics_say_that_the_database_is_away(http: httpx.AsyncClient, app: FastAPI, settings: Settings) -> None:
    for path in settings.data_dir.glob("epochd.db*"):
        path.unlink()
    (settings.data_dir / "epochd.db").mkdir()
    app.state.services.database.close()  # Last: what runs beside may open the old file until here.
    found = await values(http)
    assert found["epochd_database_up",] == 0
    assert ("epochd_workers",) not in found


async def test_every_request_leaves_one_line(
    http: httpx.AsyncClient, seed: Seed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "epochd.access")
    job = seed.queued()
    await http.get(f"/v1/jobs/{job.id}?limit=1", headers={"X-Request-Id": "mine"})
    await http.get("/v1/%0D%0AINFO%20forged")
    first, second = (record for record in caplog.records if record.name == "epochd.access")
    fields = json.loads(JsonFormatter().format(first))
    assert re.fullmatch(rf"GET /v1/jobs/{job.id} 200 in \d+\.\d ms", fields["message"])
    assert (fields["method"], fields["route"], fields["status"]) == ("GET", "/v1/jobs/{job_id}", 200)
    assert (fields["job_id"], fields["key_id"]) == (job.id, None)
    assert second.getMessage().startswith("GET /v1/%0D%0AINFO%20forged 404")


async def test_an_error_of_ours_is_counted_and_logged(
    app: FastAPI, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "epochd.access")
    services, app.state.services = app.state.services, None
    assert (await http.get("/v1/jobs")).status_code == 500
    app.state.services = services
    assert (await values(http))["epochd_http_requests_total", "GET", "/v1/jobs", "5xx"] == 1
    assert any(record.getMessage().startswith("GET /v1/jobs 500") for record in caplog.records)
