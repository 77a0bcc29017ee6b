"""What every error answer must look like."""

from __future__ import annotations

from typing import Any

import httpx

from server.problem_pages import EXPLANATIONS


def assert_problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["code"] in EXPLANATIONS
    assert problem["title"]
    assert problem["detail"]
    return problem
