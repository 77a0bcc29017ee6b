"""What is done about duplicates."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed
from worker.store import intents

pytestmark = pytest.mark.anyio

WEIGHTS = {"model.safetensors": b"weights"}


async def test_a_duplicate_is_reused_and_the_finished_one_first(http: httpx.AsyncClient, seed: Seed) -> None:
    queued = seed.queued()
    body = {"spec": SPEC, "on_duplicate": "reuse", "name": "another"}
    found = await http.post("/v1/jobs", json=body)
    assert (found.status_code, found.json()["id"], found.json()["name"]) == (200, queued.id, None)
    assert found.headers["location"] == f"/v1/jobs/{queued.id}"
    succeeded = seed.succeeded(WEIGHTS)
    assert (await http.post("/v1/jobs", json=body)).json()["id"] == succeeded.id
    other = {**SPEC, "optimizer": {"type": "sgd", "lr": 0.2}}
    assert (await http.post("/v1/jobs", json={**body, "spec": other})).status_code == 201


async def test_the_same_meaning_written_otherwise_is_a_duplicate(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.queued()
    written_out = {**SPEC, "training": {"epochs": 5}, "regularizers": []}
    found = await http.post("/v1/jobs", json={"spec": written_out, "on_duplicate": "reuse"})
    assert (found.status_code, found.json()["id"]) == (200, job.id)


async def test_a_duplicate_is_refused_with_the_id_of_the_other(http: httpx.AsyncClient, seed: Seed) -> None:
    running = seed.running()
    response = await http.post("/v1/jobs", json={"spec": SPEC, "on_duplicate": "reject"})
    assert response.status_code == 409
    problem = assert_problem(response)
    assert (problem["code"], problem["job_id"], problem["job_status"]) == ("duplicate_job", running.id, "running")
    assert running.id in problem["detail"]
    assert len((await http.get("/v1/jobs")).json()["data"]) == 1


async def test_a_job_that_failed_or_is_cancelled_is_no_duplicate(http: httpx.AsyncClient, seed: Seed) -> None:
    failed, cancelled, being_cancelled = seed.failed(), seed.queued(), seed.running()
    with seed.database.write() as connection:
        intents.request_cancel(connection, cancelled.id)
        intents.request_cancel(connection, being_cancelled.id)
    response = await http.post("/v1/jobs", json={"spec": SPEC, "on_duplicate": "reject"})
    assert response.status_code == 201
    assert response.json()["id"] not in {failed.id, cancelled.id, being_cancelled.id}


async def test_of_many_that_would_reuse_at_once_one_creates(http: httpx.AsyncClient) -> None:
    body = {"spec": SPEC, "on_duplicate": "reuse"}
    answers = await asyncio.gather(*(http.post("/v1/jobs", json=body) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_the_list_is_filtered_by_tags_and_time(http: httpx.AsyncClient) -> None:
    tags: list[list[str]] = [["a"], ["a", "a_b"], ["axb"], []]
    jobs = [(await http.post("/v1/jobs", json={"spec": SPEC, "tags": own})).json() for own in tags]

    async def found(query: dict[str, str]) -> list[int]:
        page = (await http.get("/v1/jobs", params=query)).json()["data"]
        return sorted([job["id"] for job in jobs].index(listed["id"]) for listed in page)

    assert await found({"tag": "a"}) == [0, 1]
    assert await found({"tag": "a_b"}) == [1]
    assert await found({"tag": "a,a_b"}) == [1]
    assert await found({"tag": "b"}) == []
    second, third = jobs[1]["created_at"], jobs[2]["created_at"]
    assert await found({"created_after": second}) == [2, 3]
    assert await found({"created_before": second}) == [0]
    assert await found({"created_after": jobs[0]["created_at"], "created_before": third}) == [1]
    assert await found({"created_after": "2999-01-01T00:00:00Z"}) == []
    ages = {"created_after": "0001-01-01T00:00:00Z", "created_before": "9999-12-31T23:59:59Z"}
    assert await found(ages) == [0, 1, 2, 3]
    assert await found({"created_before": "2000-01-01T14:00:00+14:00"}) == []


async def test_a_dry_run_gives_the_plan_and_stores_nothing(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    tried = await http.post("/v1/jobs?dry_run=true", json={"spec": SPEC, "name": "a"}, headers=headers)
    assert tried.status_code == 200
    assert tried.json() == (await http.post("/v1/plans", json={"spec": SPEC})).json()
    assert (await http.get("/v1/jobs")).json()["data"] == []
    made = await http.post("/v1/jobs", json={"spec": SPEC}, headers=headers)
    assert (made.status_code, made.json()["spec_digest"]) == (201, tried.json()["spec_digest"])
    events = [event["id"] for event in (await http.get(f"/v1/jobs/{made.json()['id']}/events")).json()["data"]]
    assert events == [1]


async def test_a_dry_run_refuses_what_would_be_refused(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.queued()
    faulty = [
        {"spec": {**SPEC, "optimizer": {"type": "adamm"}}},
        {"spec": {**SPEC, "training": {"init_from": job.id}}},
        {"spec": SPEC, "on_duplicate": "reject"},
    ]
    for body in faulty:
        tried, made = [await http.post(f"/v1/jobs{query}", json=body) for query in ("?dry_run=true", "")]
        assert tried.status_code == made.status_code >= 400
        problems = [{**assert_problem(answer), "request_id": None} for answer in (tried, made)]
        assert problems[0] == problems[1]


@pytest.mark.parametrize(
    "query", ["created_after=yesterday", "created_after=2026-01-01T00:00:00", "created_after=7",
              "tag=a%22b", "tag=%25"],
)  # fmt: skip
async def test_a_bad_filter_is_refused(http: httpx.AsyncClient, query: str) -> None:
    response = await http.get(f"/v1/jobs?{query}")
    assert response.status_code == 422
    assert assert_problem(response)["errors"][0]["parameter"] == query.partition("=")[0]
