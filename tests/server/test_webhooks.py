"""Webhooks over HTTP, and deliveries by running servers to real receivers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from server import webhook_sending
from server.app import create_app
from tests.server.problems import assert_problem
from tests.server.receiving import Receiver, receiving
from tests.server.seeding import Seed
from tests.server.serving import serving
from tests.server.test_auth import bearer
from worker.settings import Settings, child_environment
from worker.store import deliveries
from worker.store import webhook_tables as tables
from worker.store.deliveries import DeliveryStatus
from worker.store.keys import Scope

NOWHERE = "http://127.0.0.1:9999/hooks"
UNKNOWN = "wh_00000000000000000000000000"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", redis_url="redis://127.0.0.1:1/0", auth="off", webhook_allow="127.0.0.0/8"
    )


@pytest.fixture
async def keyed(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that asks for keys."""
    app = create_app(settings.model_copy(update={"auth": "keys"}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.webhook_delivery.POLL_SECONDS", 0.02)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def until(is_so: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def hurry(seed: Seed) -> None:
    """Make everything that waits due now."""
    with seed.database.write() as c:
        pending = tables.deliveries.c.status == DeliveryStatus.PENDING
        c.execute(update(tables.deliveries).where(pending).values(due_at=tables.deliveries.c.created_at))


def statuses(client: httpx.Client, webhook: dict[str, Any]) -> list[str]:
    return [each["status"] for each in client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["data"]]


def add(client: httpx.Client, url: str, *types: str) -> dict[str, Any]:
    body = {"url": url, "types": types} if types else {"url": url}
    webhook: dict[str, Any] = client.post("/v1/webhooks", json=body).raise_for_status().json()
    return webhook


@pytest.mark.anyio
async def test_a_webhook_is_made_shown_and_deleted(http: httpx.AsyncClient) -> None:
    created = await http.post("/v1/webhooks", json={"url": NOWHERE})
    assert created.status_code == 201
    webhook = created.json()
    assert webhook.pop("secret").startswith("whsec_")
    assert webhook["types"] == ["job.succeeded", "job.failed", "job.cancelled"]
    assert (webhook["enabled"], webhook["last_delivered_at"]) == (True, None)
    path = f"/v1/webhooks/{webhook['id']}"
    assert (await http.get(path)).json() == webhook
    other = (await http.post("/v1/webhooks", json={"url": NOWHERE, "types": ["job.failed", "job.failed"]})).json()
    assert other["types"] == ["job.failed"]
    first = (await http.get("/v1/webhooks?limit=1")).json()
    rest = (await http.get(f"/v1/webhooks?limit=1&cursor={first['next_cursor']}")).json()
    assert [first["data"][0]["id"], rest["data"][0]] == [other["id"], webhook]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert (await http.delete(path)).status_code == 204
    assert assert_problem(await http.delete(path))["code"] == "webhook_not_found"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/url", "missing_field"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "/url", "receiver_refused"),
        ({"url": "http://[::1]/"}, "/url", "receiver_refused"),
        ({"url": "http://user@127.0.0.1/"}, "/url", "receiver_refused"),
        ({"url": "http://127.0.0.1:22/"}, "/url", "receiver_refused"),
        ({"url": "https://receiver.invalid/"}, "/url", "receiver_refused"),
        ({"url": "file:///etc/passwd"}, "/url", "string_pattern_mismatch"),
        ({"url": "https://example.com/ x"}, "/url", "string_pattern_mismatch"),
        ({"url": NOWHERE, "types": []}, "/types", "too_short"),
        ({"url": NOWHERE, "types": ["job.done"]}, "/types/0", "enum"),
        ({"url": NOWHERE, "secret": "x"}, "/secret", "unknown_field"),
    ],
)
async def test_what_cannot_be_a_webhook_is_refused(
    http: httpx.AsyncClient, body: dict[str, Any], pointer: str, code: str
) -> None:
    response = await http.post("/v1/webhooks", json=body)
    assert response.status_code == 422
    item = assert_problem(response)["errors"][0]
    assert (item["pointer"], item["code"]) == (pointer, code)
    assert item["message"].startswith("expected ")
    assert (await http.get("/v1/webhooks")).json()["data"] == []


@pytest.mark.anyio
async def test_a_key_has_room_for_twenty(http: httpx.AsyncClient) -> None:
    for _ in range(20):
        assert (await http.post("/v1/webhooks", json={"url": NOWHERE})).status_code == 201
    response = await http.post("/v1/webhooks", json={"url": NOWHERE})
    problem = assert_problem(response)
    assert (response.status_code, problem["code"], problem["quota"], problem["limit"]) == (
        403,
        "quota_exceeded",
        "webhooks",
        20,
    )


@pytest.mark.anyio
async def test_webhooks_of_others_do_not_exist(keyed: httpx.AsyncClient, seed: Seed) -> None:
    mine, other, admin = (bearer(seed, scope) for scope in (Scope.SUBMIT, Scope.SUBMIT, Scope.ADMIN))
    webhook_id = (await keyed.post("/v1/webhooks", json={"url": NOWHERE}, headers=mine)).json()["id"]
    path = f"/v1/webhooks/{webhook_id}"
    delivery = (await keyed.post(f"{path}/test", headers=mine)).json()["id"]
    calls = [("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("GET", f"/deliveries/{delivery}")]
    calls += [("POST", f"/{action}") for action in ("enable", "rotate", "test", f"deliveries/{delivery}/retry")]
    for method, rest in calls:
        response = await keyed.request(method, path + rest, headers=other)
        assert (response.status_code, assert_problem(response)["code"]) == (404, "webhook_not_found"), rest
    lists = {name: (await keyed.get("/v1/webhooks", headers=key)).json() for name, key in
             {"mine": mine, "other": other, "admin": admin}.items()}  # fmt: skip
    assert {name: [each["id"] for each in page["data"]] for name, page in lists.items()} == {
        "mine": [webhook_id],
        "other": [],
        "admin": [webhook_id],
    }
    another = (await keyed.post("/v1/webhooks", json={"url": NOWHERE}, headers=mine)).json()["id"]
    response = await keyed.get(f"/v1/webhooks/{another}/deliveries/{delivery}", headers=mine)
    assert assert_problem(response)["code"] == "delivery_not_found"


@pytest.mark.anyio
async def test_a_disabled_webhook_says_why_and_is_enabled_again(app: FastAPI, http: httpx.AsyncClient) -> None:
    webhook_id = (await http.post("/v1/webhooks", json={"url": NOWHERE})).json()["id"]
    with app.state.services.database.write() as c:
        c.execute(
            update(tables.webhooks).values(disabled_at=tables.webhooks.c.created_at, disabled_reason="it is gone")
        )
    path = f"/v1/webhooks/{webhook_id}"
    shown = (await http.get(path)).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "it is gone")
    response = await http.post(f"{path}/test")
    assert (response.status_code, assert_problem(response)["code"]) == (409, "webhook_disabled")
    assert (await http.post(f"{path}/enable")).json() == (await http.post(f"{path}/enable")).json()
    assert (await http.post(f"{path}/test")).status_code == 202


def test_the_end_of_a_job_is_told_and_signed(settings: Settings, seed: Seed, receiver: Receiver) -> None:
    with serving(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        webhook = add(client, receiver.url)
        job = seed.failed()
        until(lambda: receiver.received)
        got = receiver.received[0]
        assert got.is_signed_with(webhook["secret"])
        message = json.loads(got.body)
        assert (message["type"], message["data"]["job_id"]) == ("job.failed", job.id)
        assert client.get(message["data"]["links"]["self"]).json()["error"]["code"] == "diverged"
        until(lambda: statuses(client, webhook) == ["delivered"])
        (delivery,) = client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["data"]
        assert delivery["id"] == got.headers["webhook-id"]
        assert (delivery["attempts"], delivery["status_code"], delivery["error"]) == (1, 200, None)
        assert delivery["message"]["data"] == message["data"]
        assert client.get(f"/v1/webhooks/{webhook['id']}").json()["last_delivered_at"] == delivery["finished_at"]


def test_what_was_not_taken_is_sent_again_under_its_id(settings: Settings, seed: Seed, receiver: Receiver) -> None:
    with serving(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        receiver.status = 500
        webhook = add(client, receiver.url, "job.cancelled")
        delivery = client.post(f"/v1/webhooks/{webhook['id']}/test").json()
        path = f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}"
        until(lambda: client.get(path).json()["error"])
        failed = client.get(path).json()
        assert (failed["status"], failed["attempts"], failed["status_code"]) == ("pending", 1, 500)
        receiver.status = 200
        hurry(seed)
        until(lambda: statuses(client, webhook) == ["delivered"])
        assert receiver.ids() == [delivery["id"]] * 2
        assert receiver.received[0].body == receiver.received[1].body
        again = client.post(f"{path}/retry").json()
        assert (again["status"], again["attempts"]) == ("pending", 0)
        until(lambda: len(receiver.received) == 3)
        assert receiver.ids()[2] == delivery["id"]


def test_a_rotated_secret_signs_beside_the_old_one(settings: Settings, receiver: Receiver) -> None:
    with serving(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        webhook = add(client, receiver.url)
        rotated = client.post(f"/v1/webhooks/{webhook['id']}/rotate").json()
        client.post(f"/v1/webhooks/{webhook['id']}/test").raise_for_status()
        until(lambda: receiver.received)
        assert rotated["secret"] != webhook["secret"]
        assert receiver.received[0].is_signed_with(webhook["secret"])
        assert receiver.received[0].is_signed_with(rotated["secret"])


def test_a_slow_receiver_holds_up_nobody_else(settings: Settings, seed: Seed, receiver: Receiver) -> None:
    released = threading.Event()
    with serving(create_app(settings)) as server, receiving() as slow, httpx.Client(base_url=server.url) as client:
        slow.before_answer = lambda: released.wait(30)
        waiting, quick = add(client, slow.url), add(client, receiver.url)
        jobs = {seed.failed().id for _ in range(5)}
        until(lambda: len(receiver.received) == 5)
        assert {json.loads(got.body)["data"]["job_id"] for got in receiver.received} == jobs
        assert len(slow.received) == 1
        until(lambda: statuses(client, quick) == ["delivered"] * 5)
        assert statuses(client, waiting) == ["pending"] * 5
        released.set()
        until(lambda: statuses(client, waiting) == ["delivered"] * 5)


def test_nothing_is_lost_when_the_server_is_killed(settings: Settings, seed: Seed, receiver: Receiver) -> None:
    """It dies while it sends, and jobs end while it is away."""
    reached, released = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        released.wait(30)

    receiver.before_answer = hold
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = child_environment(settings.model_copy(update={"port": port}))
    with (
        subprocess.Popen([sys.executable, "-m", "server"], env=environment, stderr=subprocess.DEVNULL) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        try:
            until(lambda: answers(client))
            webhook = add(client, receiver.url)
            cut = seed.failed().id
            assert reached.wait(20)
        finally:
            process.kill()
    released.set()
    receiver.before_answer = lambda: None
    away = {seed.failed().id for _ in range(3)}
    with seed.database.read() as c:
        (pending,) = deliveries.page(c, webhook["id"], limit=9)
        assert (pending.status, pending.attempts) == (DeliveryStatus.PENDING, 1)
    hurry(seed)  # instead of waiting until the lost attempt's lease is over
    with serving(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        until(lambda: statuses(client, webhook) == ["delivered"] * 4)
    told = [json.loads(got.body)["data"]["job_id"] for got in receiver.received]
    assert sorted(told) == sorted([cut, cut, *away])
    assert len(set(receiver.ids())) == 4


def test_two_servers_do_not_tell_twice(settings: Settings, seed: Seed, receiver: Receiver) -> None:
    with (
        serving(create_app(settings)) as server,
        serving(create_app(settings)),
        httpx.Client(base_url=server.url) as client,
    ):
        webhook = add(client, receiver.url, "job.queued", "job.running", "job.failed")
        for _ in range(10):
            seed.failed()
        until(lambda: statuses(client, webhook) == ["delivered"] * 30)
    assert len(set(receiver.ids())) == len(receiver.ids()) == 30


def test_a_name_that_changes_after_registration_is_refused(
    settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, address = socket.getaddrinfo, "127.0.0.1"

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return real(address if host == "receiver.test" else host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with serving(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        webhook = add(client, f"http://receiver.test:{receiver.port}/")
        address = "169.254.169.254"
        delivery = client.post(f"/v1/webhooks/{webhook['id']}/test").json()
        path = f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}"
        until(lambda: client.get(path).json()["error"])
        assert '"receiver.test" at 169.254.169.254' in client.get(path).json()["error"]
    assert receiver.received == []


def test_an_outcome_that_could_not_be_written_is_found_out_again(
    settings: Settings,
    receiver: Receiver,
    seed: Seed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("worker.store.database.BUSY_SECONDS", 0.05)
    reached, released = threading.Event(), threading.Event()
    receiver.before_answer = lambda: (reached.set(), released.wait(30))
    with serving(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        webhook = add(client, receiver.url)
        delivery = client.post(f"/v1/webhooks/{webhook['id']}/test").json()
        assert reached.wait(20)
        with seed.database.write():  # nobody else can write meanwhile
            released.set()
            until(lambda: f"webhook {webhook['id']} waits: the database cannot be used" in caplog.text)
        hurry(seed)  # instead of waiting until the lost attempt's lease is over
        until(lambda: statuses(client, webhook) == ["delivered"])
    assert receiver.ids() == [delivery["id"]] * 2


def test_the_secret_is_not_shown_again(settings: Settings, receiver: Receiver) -> None:
    with serving(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        webhook = add(client, receiver.url)
        client.post(f"/v1/webhooks/{webhook['id']}/test")
        path = f"/v1/webhooks/{webhook['id']}"
        for shown in (path, "/v1/webhooks", f"{path}/deliveries"):
            assert "whsec_" not in client.get(shown).text
        assert "whsec_" not in client.post(f"{path}/enable").text
        assert webhook_sending.USER_AGENT.startswith("epochd/")
