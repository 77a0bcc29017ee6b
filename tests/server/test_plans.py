"""`POST /v1/plans`: costs, duration, start and warnings of a spec that is not submitted."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from cnn.spec import TrainingSpec
from tests.server.seeding import SPEC, Seed
from worker.store import attempts, jobs, workers
from worker.store.tables import attempts as attempts_table
from worker.store.tables import jobs as jobs_table

pytestmark = pytest.mark.anyio


def changed(**parts: Any) -> dict[str, Any]:
    return {"spec": {**copy.deepcopy(SPEC), **parts}}


async def plan(http: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    response = await http.post("/v1/plans", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def finished(seed: Seed, epochs: int, seconds: float) -> None:
    """A job of so many epochs that took so long on `w-1`, which has one thread."""
    spec = TrainingSpec.model_validate({**SPEC, "training": {"epochs": epochs}})
    with seed.database.write() as connection:
        job = jobs.create(connection, spec=spec, name=None)
        claimed = attempts.claim(connection, worker_id="w-1", device="cpu", threads=1, job_id=job.id)
        assert claimed is not None
    ended_at = datetime.now(UTC)
    result = {"test_loss": 0.1, "test_accuracy": 0.9, "weights": "best", "epoch": epochs, "step": 1}
    with seed.database.write() as connection:
        done = {"status": "succeeded", "phase": None, "finished_at": ended_at, "epoch": epochs}
        names = {"artifact": "model.safetensors", "sha256": "0" * 64}
        connection.execute(update(jobs_table).where(jobs_table.c.id == job.id).values(**done, result=result | names))
        times = {"started_at": ended_at - timedelta(seconds=seconds), "ended_at": ended_at, "reason": "trained"}
        connection.execute(update(attempts_table).where(attempts_table.c.job_id == job.id).values(times))


def worker(seed: Seed, slots: int) -> None:
    with seed.database.write() as connection:
        workers.register(connection, worker_id="w-1", host="here", pid=1, device="cpu", slots=slots, threads=1)


async def test_layers_and_totals_are_exact(http: httpx.AsyncClient) -> None:
    answer = await plan(http, changed())
    conv, *_, linear = answer["layers"]
    # Four 3 x 3 filters with a bias each on 8 x 8 pixels; 256 values to 10 outputs.
    assert (conv["num_parameters"], conv["macs"], conv["output_shape"]) == (40, 4 * 9 * 64, [4, 8, 8])
    assert (linear["num_parameters"], linear["macs"], linear["pointer"]) == (2570, 2560, "/spec/model/layers/4")
    totals = answer["totals"]
    assert (totals["num_parameters"], totals["macs"], totals["num_train"]) == (2610, 2304 + 2560, 1294)
    assert (totals["steps_per_epoch"], totals["num_steps"]) == (10, 50)
    assert answer["memory"]["total"] == sum(size for part, size in answer["memory"].items() if part != "total")
    assert answer["spec"]["training"]["epochs"] == 5
    assert answer["queue"]["estimated_start_at"] is None


async def test_the_digest_is_that_of_the_job(http: httpx.AsyncClient) -> None:
    job = (await http.post("/v1/jobs", json=changed())).json()
    answer = await plan(http, changed())
    assert (answer["spec"], answer["spec_digest"]) == (job["spec"], job["spec_digest"])


async def test_nothing_is_stored(http: httpx.AsyncClient) -> None:
    await plan(http, changed())
    assert (await http.get("/v1/jobs")).json()["data"] == []


async def test_a_fix_applies_to_the_body(http: httpx.AsyncClient) -> None:
    body = changed(early_stopping={"patience": 9})
    [warning] = (await plan(http, body))["warnings"]
    assert (warning["code"], warning["pointer"]) == ("patience_never_ends", "/spec/early_stopping/patience")
    [operation] = warning["fix"]
    assert (operation["op"], operation["path"]) == ("add", "/spec/early_stopping/patience")
    body["spec"]["early_stopping"]["patience"] = operation["value"]
    assert (await plan(http, body))["warnings"] == []


async def test_a_spec_that_a_job_could_not_have_is_refused_alike(http: httpx.AsyncClient) -> None:
    for parts in (
        {"optimizer": {"type": "adm"}},
        {"training": {"batch_size": 5000}},
        {"training": {"init_from": "job_0"}},
        {"dataset": {"type": "npz", "path": "/etc/passwd"}},
    ):
        as_plan, as_job = [await http.post(path, json=changed(**parts)) for path in ("/v1/plans", "/v1/jobs")]
        assert as_plan.status_code == as_job.status_code == 422
        assert as_plan.json()["errors"] == as_job.json()["errors"]


async def test_the_duration_is_learned_from_finished_jobs(http: httpx.AsyncClient, seed: Seed) -> None:
    body = changed(training={"epochs": 40})
    unlearned = (await plan(http, body))["duration"]
    assert unlearned["learned_from"] == 0
    for epochs in range(10, 100, 5):
        finished(seed, epochs, seconds=20 + 3 * epochs)
    duration = (await plan(http, body))["duration"]
    assert duration["learned_from"] == 18
    assert duration["seconds"] == pytest.approx(140, rel=0.1)
    assert duration["low_seconds"] < 140 < duration["high_seconds"] < 200
    assert unlearned["high_seconds"] / unlearned["low_seconds"] > 10


async def test_the_start_waits_for_the_jobs_ahead(http: httpx.AsyncClient, seed: Seed) -> None:
    for _ in range(12):
        finished(seed, 5, seconds=60.0)
    worker(seed, slots=2)
    body = changed()

    async def wait() -> float:
        start = datetime.fromisoformat((await plan(http, body))["queue"]["estimated_start_at"])
        return (start - datetime.now(UTC)).total_seconds()

    assert await wait() == pytest.approx(0, abs=2)
    seed.running()
    assert await wait() == pytest.approx(0, abs=2)  # the other slot is free
    for _ in range(3):
        seed.queued()
    assert await wait() == pytest.approx(120, rel=0.15)


async def test_a_gpu_is_needed_where_one_is_asked_for(http: httpx.AsyncClient, seed: Seed) -> None:
    worker(seed, slots=1)
    assert (await plan(http, changed()))["queue"]["estimated_start_at"] is not None
    wanted = changed(training={"device": "cuda"})
    assert (await plan(http, wanted))["queue"]["estimated_start_at"] is None
