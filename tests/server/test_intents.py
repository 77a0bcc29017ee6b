from __future__ import annotations

import httpx
import pytest

from tests.server.problems import assert_problem
from tests.server.seeding import Seed
from worker.artifacts import BlobStore
from worker.jobs import Job

pytestmark = pytest.mark.anyio


def job_in(seed: Seed, state: str) -> Job:
    match state:
        case "queued":
            return seed.queued()
        case "running":
            return seed.running()
        case "failed":
            return seed.failed()
        case _:
            return seed.succeeded({"model.safetensors": b"weights"})


@pytest.mark.parametrize(
    ("state", "action", "status", "intent"),
    [
        ("queued", "pause", "paused", None),
        ("running", "pause", "running", "pause"),
        ("queued", "resume", "queued", None),
        ("running", "resume", "running", None),
        ("failed", "retry", "queued", None),
    ],
)
async def test_what_is_asked_is_done_and_again_without_harm(
    http: httpx.AsyncClient, seed: Seed, state: str, action: str, status: str, intent: str | None
) -> None:
    path = f"/v1/jobs/{job_in(seed, state).id}"
    answers = [await http.post(f"{path}/{action}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert (answers[0].json()["status"], answers[0].json()["intent"]) == (status, intent)


async def test_a_paused_job_is_resumed(http: httpx.AsyncClient, seed: Seed) -> None:
    path = f"/v1/jobs/{seed.queued().id}"
    paused = (await http.post(f"{path}/pause")).json()
    assert (paused["queue"], paused["allowed_actions"]) == (None, ["cancel", "resume"])
    resumed = (await http.post(f"{path}/resume")).json()
    assert resumed["queue"] == {"position": 1, "ahead": 0, "estimated_start_at": None}


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("succeeded", "pause"),
        ("succeeded", "resume"),
        ("succeeded", "retry"),
        ("failed", "pause"),
        ("failed", "resume"),
    ],
)
async def test_what_the_status_does_not_allow_is_409(
    http: httpx.AsyncClient, seed: Seed, state: str, action: str
) -> None:
    job = job_in(seed, state)
    response = await http.post(f"/v1/jobs/{job.id}/{action}")
    assert response.status_code == 409
    problem = assert_problem(response)
    allowed = ["delete"] if state == "succeeded" else ["retry", "delete"]
    assert (problem["job_status"], problem["allowed_actions"]) == (state, allowed)
    assert seed.get(job.id) == job


async def test_a_cancel_may_become_more_urgent(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    await http.post(f"/v1/jobs/{job.id}/cancel", json={})
    assert not seed.get(job.id).cancel_now
    assert (await http.post(f"/v1/jobs/{job.id}/cancel", json={"mode": "now"})).status_code == 202
    assert seed.get(job.id).cancel_now


async def test_a_retry_from_scratch(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.failed()
    assert (await http.post(f"/v1/jobs/{job.id}/retry", json={"from": "scratch"})).status_code == 202
    assert seed.get(job.id).first_attempt == 2


@pytest.mark.parametrize(("action", "field"), [("cancel", "mode"), ("retry", "from")])
async def test_an_unknown_way_is_422(http: httpx.AsyncClient, seed: Seed, action: str, field: str) -> None:
    response = await http.post(f"/v1/jobs/{seed.failed().id}/{action}", json={field: "soon"})
    assert response.status_code == 422
    assert assert_problem(response)["errors"][0]["pointer"] == f"/{field}"


async def test_a_patch_changes_only_what_it_names(http: httpx.AsyncClient, seed: Seed) -> None:
    first, second = seed.queued("first"), seed.queued("second")
    patched = (await http.patch(f"/v1/jobs/{second.id}", json={"priority": 3, "tags": ["a"]})).json()
    assert (patched["name"], patched["priority"], patched["tags"]) == ("second", 3, ["a"])
    assert patched["queue"] == {"position": 1, "ahead": 0, "estimated_start_at": None}
    assert (await http.patch(f"/v1/jobs/{first.id}", json={"name": None})).json()["name"] is None
    refused = await http.patch(f"/v1/jobs/{first.id}", json={"priority": None})
    assert refused.status_code == 422
    assert_problem(refused)


async def test_a_deleted_job_is_gone_with_its_files(http: httpx.AsyncClient, seed: Seed) -> None:
    job = job_in(seed, "succeeded")
    assert job.result is not None
    blob = BlobStore(seed.data_dir).path(job.result.sha256)
    assert blob.exists()
    response = await http.delete(f"/v1/jobs/{job.id}")
    assert (response.status_code, response.content) == (204, b"")
    assert not blob.exists()
    assert (await http.get(f"/v1/jobs/{job.id}")).status_code == 404
    assert (await http.delete(f"/v1/jobs/{job.id}")).status_code == 404


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_a_job_that_has_not_ended_cannot_be_deleted(http: httpx.AsyncClient, seed: Seed, state: str) -> None:
    job = job_in(seed, state)
    response = await http.delete(f"/v1/jobs/{job.id}")
    assert response.status_code == 409
    assert assert_problem(response)["job_status"] == state
    assert seed.get(job.id) == job
