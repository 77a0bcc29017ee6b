from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from server.app import create_app
from server.middleware import BodyLimit
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC
from worker.settings import Settings

pytestmark = pytest.mark.anyio


async def test_every_answer_has_an_id_and_security_headers(http: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nope", "/v1/jobs"):
        headers = (await http.get(path)).headers
        assert re.fullmatch(r"req_[0-9a-f]{16}", headers["x-request-id"])
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2_3", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("a\tb", False), ("<b>", False)],
)
async def test_a_plain_request_id_is_kept(http: httpx.AsyncClient, given: str, kept: bool) -> None:
    response = await http.get("/healthz", headers={"X-Request-Id": given})
    assert (response.headers["x-request-id"] == given) is kept


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("lab.example", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:8000", False),
        ("a/?x=", False),
        ("localhost:8000:8000", False),
        ("localhost@evil.example", False),
        ("", False),
    ],
)
async def test_only_our_own_hosts_are_served(settings: Settings, host: str, allowed: bool) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": "lab.example, other.example"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        response = await client.get("/healthz", headers={"Host": host})
    assert response.status_code == (200 if allowed else 400)
    if not allowed:
        assert assert_problem(response)["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1", True),
        ("https://lab.example", True),
        ("http://lab.example", False),
        ("https://evil.example", False),
        ("null", False),
        ("http://127.0.0.1:9999", False),
        ("http://127.0.0.1.evil.example", False),
    ],
)
async def test_pages_of_other_origins_change_nothing(settings: Settings, origin: str | None, allowed: bool) -> None:
    app = create_app(settings.model_copy(update={"allowed_origins": "https://lab.example"}))
    headers = {} if origin is None else {"Origin": origin}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        response = await client.post("/v1/jobs", json={"spec": SPEC}, headers=headers)
        assert response.status_code == (201 if allowed else 403)
        assert (await client.get("/v1/jobs", headers=headers)).status_code == 200
    if not allowed:
        assert assert_problem(response)["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers


async def test_a_chunked_body_is_limited_too(http: httpx.AsyncClient) -> None:
    num_read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal num_read
        for _ in range(60):
            num_read += 1
            yield b" " * 100_000

    response = await http.post("/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert_problem(response)
    assert num_read == 60, "the rest was not read, so that a client may not get to read the answer"


async def test_a_declared_length_is_refused_without_reading_where_the_client_waits(http: httpx.AsyncClient) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"Content-Length": "60000000", "Expect": "100-continue", "Content-Type": "application/json"}
    response = await http.post("/v1/jobs", content=never(), headers=headers)
    assert response.status_code == 413
    assert "60000000 bytes" in assert_problem(response)["detail"]


async def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    app = FastAPI()
    limited = BodyLimit(app, max_bytes=100, seconds=0.05)

    @app.post("/")
    async def read(body: dict[str, int]) -> None:
        del body

    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await asyncio.wait_for(_call(limited, scope, receive, send), 5)
    assert sent[0]["status"] == 408


async def _call(app: BodyLimit, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
