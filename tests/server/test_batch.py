"""Many jobs at once, each with a result of its own; attempts; changes that need the newest state."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.server.problems import assert_problem
from tests.server.seeding import Seed
from worker.artifacts import BlobStore
from worker.store import attempts
from worker.store.attempts import Exit

pytestmark = pytest.mark.anyio

UNKNOWN = f"job_{'0' * 26}"


async def act(http: httpx.AsyncClient, action: str, ids: list[str], **options: str) -> list[dict[str, Any]]:
    response = await http.post("/v1/jobs/batch", json={"action": action, "ids": ids, **options})
    assert response.status_code == 200
    results: list[dict[str, Any]] = response.json()["data"]
    assert [result["id"] for result in results] == ids
    return results


async def test_each_job_gets_its_own_result(http: httpx.AsyncClient, seed: Seed) -> None:
    queued, running, failed = seed.queued(), seed.running(), seed.failed()
    results = await act(http, "cancel", [queued.id, failed.id, UNKNOWN, "x", running.id], mode="now")
    assert [result["status_code"] for result in results] == [202, 409, 404, 404, 202]
    assert [(result["job"] or {}).get("status") for result in results] == ["cancelled", None, None, None, "running"]
    assert results[4]["job"]["intent"] == "cancel"
    assert seed.get(running.id).cancel_now
    problem = results[1]["problem"]
    assert (problem["code"], problem["job_status"], problem["instance"]) == ("conflict", "failed", "/v1/jobs/batch")
    assert results[2]["problem"]["code"] == "job_not_found"
    assert seed.get(failed.id) == failed


async def test_every_action_does_what_its_own_route_does(http: httpx.AsyncClient, seed: Seed) -> None:
    first, second = seed.queued(), seed.failed()
    assert (await act(http, "pause", [first.id]))[0]["job"]["status"] == "paused"
    [resumed] = await act(http, "resume", [first.id])
    assert (resumed["job"]["status"], resumed["job"]["queue"]["position"]) == ("queued", 1)
    [retried] = await act(http, "retry", [second.id], **{"from": "scratch"})
    assert retried["job"]["status"] == "queued"
    assert seed.get(second.id).first_attempt == 2
    assert retried["job"] == (await http.get(f"/v1/jobs/{second.id}")).json()


async def test_what_has_ended_is_deleted(http: httpx.AsyncClient, seed: Seed) -> None:
    failed, succeeded, queued = seed.failed(), seed.succeeded({"model.safetensors": b"weights"}), seed.queued()
    results = await act(http, "delete", [failed.id, queued.id, succeeded.id, failed.id])
    assert [result["status_code"] for result in results] == [204, 409, 204, 404]
    assert [job["id"] for job in (await http.get("/v1/jobs")).json()["data"]] == [queued.id]


async def test_no_deletion_waits_forever_for_a_worker_that_stores_files(
    http: httpx.AsyncClient, seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.artifacts.PATIENCE_SECONDS", 0.1)
    job = seed.failed()
    with BlobStore(seed.data_dir).adding():
        alone = await http.delete(f"/v1/jobs/{job.id}")
        among_many = await http.post("/v1/jobs/batch", json={"action": "delete", "ids": [job.id]})
    for response in (alone, among_many):
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert assert_problem(response)["code"] == "unavailable"
    assert seed.get(job.id) == job
    assert (await http.delete(f"/v1/jobs/{job.id}")).status_code == 204


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"action": "cancel", "ids": []}, "/ids"),
        ({"action": "cancel", "ids": ["x"] * 201}, "/ids"),
        ({"action": "stop", "ids": ["x"]}, "/action"),
        ({"action": "cancel", "ids": [1]}, "/ids/0"),
        ({"action": "retry", "ids": ["x"], "from": "best"}, "/from"),
    ],
)
async def test_a_bad_batch_is_refused(http: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    response = await http.post("/v1/jobs/batch", json=body)
    assert response.status_code == 422
    assert assert_problem(response)["errors"][0]["pointer"] == pointer


async def test_attempts_say_who_tried_and_why_it_ended(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    with seed.database.write() as connection:
        attempts.checkpoint(connection, job.id, job.token, epoch=1, step=30)
        attempts.requeue(connection, job.id, job.token, reason="worker_drained", exit=Exit(signal=15))
        attempts.claim(connection, worker_id="w-2", device="cpu", job_id=job.id)
    path = f"/v1/jobs/{job.id}"
    page = (await http.get((await http.get(path)).json()["links"]["attempts"])).json()
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    first, second = page["data"]
    assert (first["number"], first["worker"], first["reason"], first["signal"]) == (1, "w-1", "worker_drained", 15)
    assert first["ended_at"] >= first["started_at"]
    assert (second["number"], second["worker"], second["first_step"], second["ended_at"]) == (2, "w-2", 30, None)
    assert (await http.get(f"/v1/jobs/{seed.queued().id}/attempts")).json()["data"] == []


async def test_a_change_of_something_else_than_what_was_seen_is_refused(http: httpx.AsyncClient, seed: Seed) -> None:
    path = f"/v1/jobs/{seed.queued().id}"
    etag = (await http.get(path)).headers["etag"]
    changed = await http.patch(path, json={"name": "mine"}, headers={"If-Match": f'"other", {etag}'})
    assert changed.status_code == 200
    refused = await http.patch(path, json={"name": "yours"}, headers={"If-Match": etag})
    assert refused.status_code == 412
    assert assert_problem(refused)["code"] == "precondition_failed"
    assert (await http.patch(path, json={"priority": 1}, headers={"If-Match": "*"})).json()["name"] == "mine"
    await http.post(f"{path}/cancel")
    assert (await http.delete(path, headers={"If-Match": changed.headers["etag"]})).status_code == 412
    newest = (await http.get(path)).headers["etag"]
    assert (await http.delete(path, headers={"If-Match": newest})).status_code == 204
