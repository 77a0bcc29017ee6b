"""Ids and names in paths are looked up, never used as paths of files."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from tests.server.seeding import Seed
from worker.settings import Settings

pytestmark = pytest.mark.anyio

NASTY = (
    "..",
    "%2e%2e",
    "..%2f..%2fepochd.db",
    "%2fetc%2fpasswd",
    "..%5c..%5cepochd.db",
    "%00",
    "a%00b",
    "%0d%0aX-Evil:1",
    "%ff%fe",
    "~root",
    "a%23b",
    "a%3fb",
    "%E2%80%AEevil",
    "x" * 5000,
    "job_" + "0" * 26 + "%0a",
)


@pytest.mark.parametrize("value", NASTY)
async def test_no_value_of_a_path_parameter_gets_at_a_file(
    app: FastAPI, http: httpx.AsyncClient, seed: Seed, settings: Settings, value: str
) -> None:
    (settings.data_dir / "secret").write_text("SECRET")
    job = seed.succeeded({"model.safetensors": b"weights"})
    seed.log(job, "line\n")
    asked = 0
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        names = re.findall(r"\{(\w+)\}", route.path)
        for name in names:
            path = route.path.replace(f"{{{name}}}", value).replace("{job_id}", job.id)
            path = re.sub(r"\{\w+\}", "x", path)
            for method in (route.methods or set()) - {"DELETE"}:
                response = await http.request(method, path)
                asked += 1
                assert 400 <= response.status_code < 500 or value == "..", (method, path, response.status_code)
                assert b"SECRET" not in response.content
                assert b"SQLite format" not in response.content
                assert "x-evil" not in response.headers
    assert asked > 20
