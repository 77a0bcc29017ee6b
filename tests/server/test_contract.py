"""What holds for every route: errors are problems, the document is the recorded one, and torch is never loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from server.app import create_app
from tests.server.problems import assert_problem
from worker.settings import Settings

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).with_name("openapi.json")
REFRESH = "python -m tests.server.test_contract"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def _routes(app: FastAPI) -> Iterator[tuple[str, set[str]]]:
    """Each path template with the methods that a path of it takes, also by other templates: `/v1/jobs/batch`."""
    methods: dict[str, set[str]] = {}
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        methods.setdefault(route.path, set()).update(route.methods or ())
    for template in methods:
        others = [other for other in methods if re.fullmatch(re.sub(r"\{\w+\}", "[^/{]+", other), template)]
        yield template, methods[template].union(*(methods[other] for other in others))


async def test_every_method_of_every_route_fails_with_a_problem(app: FastAPI, http: httpx.AsyncClient) -> None:
    for template, methods in _routes(app):
        path = template.replace(":path", "").format(
            path="nothing.js",
            code="nothing",
            job_id="job_00000000000000000000000000",
            name="model.safetensors",
            upload_id="up_00000000000000000000000000",
            dataset_id="ds_00000000000000000000000000",
            key_id="key_00000000000000000000000000",
            webhook_id="wh_00000000000000000000000000",
            delivery_id="msg_00000000000000000000000000",
        )
        for method in METHODS:
            response = await http.request(method, f"{path}?unknown=1")
            if response.status_code >= 400 and method == "HEAD":
                assert response.headers["content-type"] == "application/problem+json"
            elif response.status_code >= 400:
                assert assert_problem(response)["instance"] == path
            assert response.status_code < 500 or path == "/readyz"
            if method not in methods:
                assert response.status_code == 405
                assert set(response.headers["allow"].split(", ")) == methods


async def test_every_error_status_that_routes_give_is_in_the_document(app: FastAPI) -> None:
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            for status_code, response in operation["responses"].items():
                if int(status_code) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]


async def test_no_route_has_a_description_missing(app: FastAPI) -> None:
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute):
            assert route.original_route.description, route.path


async def test_unions_of_the_spec_have_names_in_the_document(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    assert {"TrainingSpec", "Optimizer", "Layer", "Problem", "Job"} <= set(schemas)
    assert "HTTPValidationError" not in schemas


async def test_the_document_is_the_recorded_one(app: FastAPI) -> None:
    """The document is what clients are generated from: a change of it must be seen, and committed."""
    recorded = json.loads(GOLDEN.read_text("utf-8"))
    assert app.openapi() == recorded, f"if the change is meant, refresh {GOLDEN.name} with `{REFRESH}`"


async def test_the_schema_of_a_spec_is_served(http: httpx.AsyncClient) -> None:
    schema = (await http.get("/v1/schema")).json()
    assert schema["title"] == "TrainingSpec"
    assert set(schema["required"]) == {"dataset", "model", "optimizer"}


async def test_readiness_names_what_is_away(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    codes = {item["code"] for item in assert_problem(response)["errors"]}
    assert codes == {"queue_unavailable", "worker_unavailable"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("server.app", ("torch", "torchvision")),
        ("server.__main__", ("torch", "torchvision")),
        ("server.client", ("torch", "fastapi", "starlette", "sqlalchemy", "celery", "worker", "cnn")),
        ("server.cli", ("torch", "fastapi", "starlette", "sqlalchemy", "celery", "worker", "cnn")),
    ],
)
async def test_what_a_module_must_not_load(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(absent) & set(loaded)


async def test_a_served_request_does_not_load_torch(tmp_path: Path) -> None:
    code = """
import asyncio, json, sys
from pathlib import Path
import httpx
from server.app import create_app
from worker.settings import Settings

async def main():
    app = create_app(Settings(data_dir=Path(sys.argv[1]), redis_url="redis://127.0.0.1:1/0", auth="off"))
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    async with app.router.lifespan_context(app), client:
        job = await client.post("/v1/jobs", json=json.loads(sys.argv[2]))
        print(job.status_code, (await client.get("/openapi.json")).status_code, "torch" in sys.modules)

asyncio.run(main())
"""
    body = json.dumps(
        {
            "spec": {
                "dataset": {"type": "fashion_mnist"},
                "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
                "optimizer": {"type": "adam"},
            }
        }
    )
    command = [sys.executable, "-c", code, str(tmp_path), body]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["201", "200", "False"]


if __name__ == "__main__":
    document = create_app(Settings()).openapi()
    GOLDEN.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")
