"""Webhooks by the clients, and `epochd webhooks`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from server.app import create_app
from server.client import AsyncClient, Client, Conflict, InvalidRequest, NotFound
from tests.server.receiving import Receiver, receiving
from tests.server.seeding import Seed
from tests.server.serving import Server, serving
from tests.server.test_cli import Epochd
from worker.settings import Settings
from worker.store import webhooks


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", redis_url="redis://127.0.0.1:1/0", auth="off", webhook_allow="127.0.0.0/8"
    )


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("server.webhook_delivery.POLL_SECONDS", 0.02)
    with serving(create_app(settings)) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def test_a_client_adds_tests_rotates_and_deletes(server: Server, receiver: Receiver, seed: Seed) -> None:
    with Client(server.url) as client:
        webhook = client.webhooks.add(receiver.url, types=["job.failed"])
        assert webhook.types == ("job.failed",)
        delivery = client.webhooks.test(webhook.id, poll_seconds=0.02)
        assert (delivery.status, delivery.type) == ("delivered", "webhook.test")
        assert receiver.received[0].is_signed_with(webhook.secret)
        assert client.webhooks.rotate(webhook.id).secret != webhook.secret
        receiver.status = 500
        failed = client.webhooks.test(webhook.id, poll_seconds=0.02)
        assert (failed.status, failed.attempts, failed.status_code) == ("pending", 1, 500)
        assert [each.id for each in client.webhooks.deliveries(webhook.id)] == [failed.id, delivery.id]
        assert [each.id for each in client.webhooks.deliveries(webhook.id, statuses=["pending"])] == [failed.id]
        receiver.status = 200
        assert client.webhooks.retry(webhook.id, delivery.id).attempts == 0
        with seed.database.write() as c:
            webhooks.disable(c, webhook.id, "for a test")
        with pytest.raises(Conflict, match="for a test"):
            client.webhooks.test(webhook.id)
        assert client.webhooks.enable(webhook.id) == client.webhooks.get(webhook.id)
        client.webhooks.delete(webhook.id)
        assert list(client.webhooks.list()) == []
        with pytest.raises(NotFound):
            client.webhooks.delete(webhook.id)


def test_an_asynchronous_client_does_the_same(server: Server, receiver: Receiver) -> None:
    async def use() -> None:
        client = AsyncClient(server.url)
        webhook = await client.webhooks.add(receiver.url)
        delivery = await client.webhooks.test(webhook.id, poll_seconds=0.02)
        assert await client.webhooks.delivery(webhook.id, delivery.id) == delivery
        assert (await client.webhooks.retry(webhook.id, delivery.id)).status == "pending"
        assert [each.id async for each in client.webhooks.deliveries(webhook.id)] == [delivery.id]
        assert (await client.webhooks.rotate(webhook.id)).secret != webhook.secret
        assert await client.webhooks.enable(webhook.id) == await client.webhooks.get(webhook.id)
        assert [each.id async for each in client.webhooks.list()] == [webhook.id]
        with pytest.raises(InvalidRequest, match="EPOCHD_WEBHOOK_ALLOW"):
            await client.webhooks.add("http://10.0.0.1/")
        await client.webhooks.delete(webhook.id)
        await client.close()

    anyio.run(use)


def test_the_command_adds_tests_lists_and_removes(server: Server, receiver: Receiver) -> None:
    epochd = Epochd(server.url)
    added = epochd("webhooks", "add", receiver.url, "--type", "job.failed", "--type", "job.succeeded")
    assert added.exit_code == 0
    webhook_id, secret = added.stdout.split()
    tested = epochd("webhooks", "test", webhook_id)
    assert (tested.exit_code, tested.stdout.split()[1:]) == (0, ["is", "delivered"])
    assert receiver.received[0].is_signed_with(secret)
    listed = epochd("webhooks", "ls")
    assert listed.stdout.split("\n")[1].strip().startswith(f"{webhook_id}  {receiver.url}")
    assert {"job.failed", "job.succeeded"} <= set(listed.stdout.split())
    receiver.status = 404
    tested = epochd("webhooks", "test", webhook_id)
    assert tested.exit_code == 1
    assert "is pending after 1 attempts: expected a status of 200 to 299, got 404; next at 20" in tested.stdout
    told = epochd("webhooks", "deliveries", webhook_id, "--json").stdout.splitlines()
    assert [json.loads(line)["status"] for line in told] == ["pending", "delivered"]
    assert epochd("webhooks", "deliveries", webhook_id).stdout.count("webhook.test") == 2
    assert epochd("webhooks", "rotate", webhook_id).stdout.startswith("whsec_")
    assert epochd("webhooks", "enable", webhook_id).stdout == f"{webhook_id} is enabled\n"
    near = epochd("webhooks", "rm", webhook_id[:-1])
    assert near.exit_code == 4
    assert f"{webhook_id}  {receiver.url}" in near.stderr
    assert epochd("webhooks", "rm", webhook_id).stdout == f"{webhook_id} is deleted\n"
    refused = epochd("webhooks", "add", "http://10.0.0.1/")
    assert refused.exit_code == 2
    assert "/url: expected a host on the public internet" in refused.stderr
