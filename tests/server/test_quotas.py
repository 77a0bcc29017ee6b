"""Quotas of keys as clients meet them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed
from worker.settings import Settings
from worker.store import keys
from worker.store.keys import Limits, Scope

pytestmark = pytest.mark.anyio

WEIGHT_BYTES = 4 * (4 * 9 + 4 + 10 * 4 * 8 * 8 + 10)
"""One convolution of 4 filters of 3 x 3, and a dense layer from its 4 x 8 x 8 activations to 10 classes."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", redis_url="redis://127.0.0.1:1/0")


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        yield client


def bearer(seed: Seed, **limits: int) -> dict[str, str]:
    with seed.database.write() as c:
        secret = keys.create(c, name="a", scope=Scope.SUBMIT, limits=Limits(**limits))[1]
    return {"Authorization": f"Bearer {secret}"}


async def test_of_50_submissions_at_once_10_get_in_at_a_quota_of_10(http: httpx.AsyncClient, seed: Seed) -> None:
    mine = bearer(seed, max_queued=10)
    calls = [http.post("/v1/jobs", json={"spec": SPEC}, headers=mine) for _ in range(50)]
    responses = await asyncio.gather(*calls)
    assert sorted(response.status_code for response in responses) == [201] * 10 + [429] * 40
    refused = next(response for response in responses if response.status_code == 429)
    problem = assert_problem(refused)
    assert refused.headers["retry-after"] == "30"
    assert problem["code"] == "quota_exceeded"
    assert (problem["quota"], problem["limit"], problem["used"]) == ("queued", 10, 10)
    assert len((await http.get("/v1/jobs", headers=mine)).json()["data"]) == 10


async def test_what_waiting_does_not_mend_is_forbidden(http: httpx.AsyncClient, seed: Seed) -> None:
    reserved = 3 * WEIGHT_BYTES + 2**20
    mine = bearer(seed, max_stored_bytes=2 * reserved)
    for status_code in (201, 201, 403):
        response = await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine)
        assert response.status_code == status_code
    problem = assert_problem(response)
    assert (problem["quota"], problem["limit"], problem["used"]) == ("stored_bytes", 2 * reserved, 2 * reserved)
    upload = await http.post("/v1/uploads", json={"bytes": 1, "sha256": "0" * 64}, headers=mine)
    assert upload.status_code == 403
    assert (await http.get("/v1/key", headers=mine)).json()["usage"]["stored_bytes"] == 2 * reserved


async def test_a_quota_of_device_seconds_asks_for_a_limit(http: httpx.AsyncClient, seed: Seed) -> None:
    mine = bearer(seed, max_device_seconds=100)
    response = await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine)
    assert response.status_code == 403
    assert "limits.max_runtime_seconds" in assert_problem(response)["detail"]
    limited = {"spec": SPEC, "limits": {"max_runtime_seconds": 60}}
    assert (await http.post("/v1/jobs", json=limited, headers=mine)).status_code == 201
    assert (await http.post("/v1/jobs", json=limited, headers=mine)).status_code == 403
    assert (await http.get("/v1/key", headers=mine)).json()["usage"]["device_seconds"] == 60


async def test_a_retry_needs_room_as_a_new_job_does(http: httpx.AsyncClient, seed: Seed) -> None:
    mine = bearer(seed, max_queued=1)
    first, _ = [(await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine)).json() for _ in range(2)]
    await http.post(f"/v1/jobs/{first['id']}/cancel", headers=mine)
    assert (await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine)).status_code == 201
    response = await http.post(f"/v1/jobs/{first['id']}/retry", headers=mine)
    assert response.status_code == 429
    batch = await http.post("/v1/jobs/batch", json={"action": "retry", "ids": [first["id"]]}, headers=mine)
    assert batch.json()["data"][0]["problem"]["quota"] == "queued"
    assert seed.get(first["id"]).status == "cancelled"


async def test_a_key_shows_its_limits_and_what_it_takes(http: httpx.AsyncClient, seed: Seed) -> None:
    mine = bearer(seed, max_queued=3)
    await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine)
    key = (await http.get("/v1/key", headers=mine)).json()
    assert key["limits"]["max_queued"] == 3
    assert (key["usage"]["queued"], key["usage"]["running"], key["usage"]["device_seconds"]) == (1, 0, 0)
    with seed.database.write() as c:
        admin = {"Authorization": f"Bearer {keys.create(c, name='b', scope=Scope.ADMIN)[1]}"}
    assert (await http.get(f"/v1/keys/{key['id']}", headers=admin)).json()["usage"] == key["usage"]
    assert (await http.get("/v1/keys/key_nobody", headers=admin)).status_code == 404


async def test_a_repeated_request_takes_nothing_more(http: httpx.AsyncClient, seed: Seed) -> None:
    mine = {**bearer(seed, max_queued=1), "Idempotency-Key": "k"}
    answers = [await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
