from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from server.app import create_app
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed
from worker.settings import Settings

pytestmark = pytest.mark.anyio


async def test_a_submitted_job_is_created_with_every_default(http: httpx.AsyncClient) -> None:
    response = await http.post(
        "/v1/jobs", json={"spec": SPEC, "name": "Ziffern 0-9", "priority": 3, "tags": ["a", "b"]}
    )
    assert response.status_code == 201
    job = response.json()
    assert response.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["intent"], job["terminal"], job["attempt"]) == ("queued", None, False, 0)
    assert (job["name"], job["priority"], job["tags"]) == ("Ziffern 0-9", 3, ["a", "b"])
    assert job["allowed_actions"] == ["cancel", "pause"]
    assert job["queue"] == {"position": 1, "ahead": 0, "estimated_start_at": None}
    assert job["dataset"] == {"id": "digits", "digest": None}
    assert job["spec"]["training"]["epochs"] == 5
    assert job["spec"]["model"]["layers"][1]["name"] == "relu1"
    assert job["created_at"].endswith("Z")
    assert (await http.get(response.headers["location"])).json() == job


async def test_a_resolved_spec_can_be_submitted_again_and_means_the_same(http: httpx.AsyncClient) -> None:
    first = (await http.post("/v1/jobs", json={"spec": SPEC})).json()
    second = (await http.post("/v1/jobs", json={"spec": first["spec"]})).json()
    assert second["spec_digest"] == first["spec_digest"]
    assert second["id"] != first["id"]


async def test_a_job_is_answered_304_while_it_has_not_changed(http: httpx.AsyncClient, seed: Seed) -> None:
    path = f"/v1/jobs/{seed.queued().id}"
    etag = (await http.get(path)).headers["etag"]
    assert etag.startswith('"')
    unchanged = await http.get(path, headers={"If-None-Match": f'"other", {etag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    await http.post(f"{path}/cancel")
    changed = await http.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


async def test_queue_positions_follow_priority_and_then_age(http: httpx.AsyncClient) -> None:
    ids = [(await http.post("/v1/jobs", json={"spec": SPEC, "priority": p})).json()["id"] for p in (0, 0, 5)]
    positions = [(await http.get(f"/v1/jobs/{job_id}")).json()["queue"]["position"] for job_id in ids]
    assert positions == [2, 3, 1]


async def test_a_waiting_job_is_cancelled_at_once_and_again_without_harm(http: httpx.AsyncClient, seed: Seed) -> None:
    path = f"/v1/jobs/{seed.queued().id}"
    for _ in range(2):
        response = await http.post(f"{path}/cancel")
        assert response.status_code == 202
        job = response.json()
        assert (job["status"], job["terminal"], job["allowed_actions"]) == ("cancelled", True, ["retry", "delete"])
    events = (await http.get(f"{path}/events", params={"types": "job.status"})).json()["data"]
    assert [event["data"]["to"] for event in events] == ["queued", "cancelled"]


async def test_a_running_job_is_told_to_cancel(http: httpx.AsyncClient, seed: Seed) -> None:
    path = f"/v1/jobs/{seed.running().id}"
    for _ in range(2):
        response = await http.post(f"{path}/cancel")
        assert response.status_code == 202
        job = response.json()
        assert (job["status"], job["intent"], job["terminal"]) == ("running", "cancel", False)
    events = (await http.get(f"{path}/events", params={"types": "job.intent"})).json()["data"]
    assert len(events) == 1


async def test_a_job_that_has_ended_cannot_be_cancelled(http: httpx.AsyncClient, seed: Seed) -> None:
    response = await http.post(f"/v1/jobs/{seed.failed().id}/cancel")
    assert response.status_code == 409
    problem = assert_problem(response)
    assert (problem["job_status"], problem["allowed_actions"]) == ("failed", ["retry", "delete"])


async def test_a_failed_job_says_why_and_whose_move_it_is(http: httpx.AsyncClient, seed: Seed) -> None:
    error = (await http.get(f"/v1/jobs/{seed.failed().id}")).json()["error"]
    assert (error["code"], error["blame"], error["retryable"]) == ("diverged", "user", False)
    assert error["hint"] == "lower lr"


@pytest.mark.parametrize("job_id", ["job_00000000000000000000000000", "job_x", "1", "job_%00", "..%2f", "%F0%9F%90%9B"])
@pytest.mark.parametrize("rest", ["", "/metrics", "/events", "/logs", "/artifacts", "/artifacts/model.safetensors"])
async def test_an_unknown_job_is_404_everywhere(http: httpx.AsyncClient, job_id: str, rest: str) -> None:
    response = await http.get(f"/v1/jobs/{job_id}{rest}")
    assert response.status_code == 404
    assert assert_problem(response)["code"] in ("job_not_found", "not_found")


async def test_a_walk_over_the_list_is_complete_while_jobs_are_added(http: httpx.AsyncClient, seed: Seed) -> None:
    there = [seed.queued().id for _ in range(7)]
    seen: list[str] = []
    params: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await http.get("/v1/jobs", params=params)).json()
        seen += [job["id"] for job in page["data"]]
        seed.queued()
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == there[::-1]


async def test_the_list_is_filtered_by_status_and_name(http: httpx.AsyncClient, seed: Seed) -> None:
    named = seed.queued("mine").id
    seed.queued()
    running, failed = seed.running().id, seed.failed().id

    async def ids(query: str) -> set[str]:
        return {job["id"] for job in (await http.get(f"/v1/jobs?{query}")).json()["data"]}

    assert await ids("status=running,failed") == {running, failed}
    assert await ids("status=running&status=failed") == {running, failed}
    assert await ids("name=mine") == {named}
    assert await ids("name=nobody") == set()


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("status=done", "status"),
        ("stauts=failed", "stauts"),
        ("cursor=../../x", "cursor"),
        ("name=a%00b", "name"),
    ],
)
async def test_a_bad_parameter_is_named(http: httpx.AsyncClient, query: str, parameter: str) -> None:
    response = await http.get(f"/v1/jobs?{query}")
    assert response.status_code == 422
    [item] = assert_problem(response)["errors"]
    assert (item["pointer"], item["parameter"]) == (None, parameter)


async def test_a_frozen_queue_delays_no_submission(tmp_path: Path) -> None:
    # The backlog accepts connections that nobody ever answers.
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"redis://127.0.0.1:{frozen.getsockname()[1]}/0"
        app = create_app(Settings(data_dir=tmp_path / "data", redis_url=url, auth="off"))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        ):
            started = time.monotonic()
            responses = await asyncio.gather(*(http.post("/v1/jobs", json={"spec": SPEC}) for _ in range(10)))
            assert time.monotonic() - started < 3
    assert {response.status_code for response in responses} == {201}


async def test_a_locked_database_is_503_and_nothing_is_lost(http: httpx.AsyncClient, seed: Seed) -> None:
    job_id = seed.queued().id
    # The store gives up after ten seconds, and so does this test a little later.
    released = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with seed.database.write():
            held.set()
            released.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(5)
        response = await http.post(f"/v1/jobs/{job_id}/cancel")
    finally:
        released.set()
        holder.join()
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert assert_problem(response)["code"] == "unavailable"
    assert (await http.get(f"/v1/jobs/{job_id}")).json()["status"] == "queued"


async def test_the_weights_to_start_from_must_be_there(http: httpx.AsyncClient, seed: Seed) -> None:
    trained = seed.succeeded({"model.safetensors": b"weights"})
    for source, status in ((trained.id, 201), (seed.failed().id, 422), (f"job_{'0' * 26}", 422)):
        answer = await http.post("/v1/jobs", json={"spec": {**SPEC, "training": {"init_from": source}}})
        assert answer.status_code == status
    (item,) = answer.json()["errors"]
    assert (item["pointer"], item["code"]) == ("/spec/training/init_from", "no_initial_weights")
