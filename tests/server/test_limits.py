from __future__ import annotations

import httpx
import pytest

from tests.server.problems import assert_problem
from tests.server.seeding import SPEC

pytestmark = pytest.mark.anyio


async def test_a_job_shows_its_limits_and_what_it_does_when_its_domain_is_gone(http: httpx.AsyncClient) -> None:
    body = {"spec": SPEC, "limits": {"max_runtime_seconds": 60}, "on_domain_change": "continue"}
    job = (await http.post("/v1/jobs", json=body)).json()
    assert (job["limits"], job["on_domain_change"]) == ({"max_runtime_seconds": 60}, "continue")
    paused = (await http.post(f"{job['links']['self']}/pause")).json()
    assert (job["pause_reason"], paused["pause_reason"]) == (None, "user")


async def test_without_limits_a_job_may_run_for_ever_and_waits_for_its_domain(http: httpx.AsyncClient) -> None:
    job = (await http.post("/v1/jobs", json={"spec": SPEC})).json()
    assert (job["limits"], job["on_domain_change"]) == ({"max_runtime_seconds": None}, "wait")


@pytest.mark.parametrize("limits", [{"max_runtime_seconds": 0}, {"max_runtime_seconds": 0.5}, {"max_steps": 1}])
async def test_limits_that_mean_nothing_are_refused(http: httpx.AsyncClient, limits: dict[str, float]) -> None:
    response = await http.post("/v1/jobs", json={"spec": SPEC, "limits": limits})
    assert response.status_code == 422
    problem = assert_problem(response)
    assert problem["errors"][0]["pointer"].startswith("/limits/")
