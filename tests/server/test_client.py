from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path

import httpx
import pytest

from server.client import Client, Conflict, DigestMismatch, InvalidRequest, NoSuchArtifact, NotFound, Unreachable
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server
from worker.jobs import JobStatus
from worker.store import intents, jobs

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.url)


def test_a_job_is_submitted_read_listed_and_cancelled(client: Client) -> None:
    with client:
        job = client.submit(SPEC, name="first", priority=2, tags=["a"])
        assert (job.status, job.name, job.priority, job.tags) == ("queued", "first", 2, ("a",))
        assert client.get(job.id) == job
        others = [client.submit(SPEC).id for _ in range(3)]
        assert [found.id for found in client.list()] == [*others[::-1], job.id]
        assert [found.id for found in client.list(name="first")] == [job.id]
        assert client.cancel(job.id).terminal
        assert [found.id for found in client.list(statuses=["cancelled", "failed"])] == [job.id]
        assert [event.type for event in client.events(job.id, after=1)] == ["job.status"]


def test_a_spec_is_planned_and_a_duplicate_found(client: Client) -> None:
    with client:
        plan = client.plan(SPEC)
        job = client.submit(SPEC, max_runtime_seconds=60, on_domain_change="continue")
        assert plan.spec_digest == job.spec_digest
        assert plan.totals.num_steps > 0
        assert (job.limits.max_runtime_seconds, job.on_domain_change) == (60, "continue")
        assert client.submit(SPEC, on_duplicate="reuse").id == job.id
        with pytest.raises(Conflict) as conflict:
            client.submit(SPEC, on_duplicate="reject")
        assert conflict.value.problem["job_id"] == job.id


def test_waiting_ends_with_the_terminal_job(client: Client, seed: Seed) -> None:
    job = seed.running()
    seen = []
    with client:
        for state in client.wait(job.id):
            seen.append((state.status, state.intent))
            if len(seen) == 1:
                with seed.database.write() as connection:
                    intents.request_cancel(connection, job.id)
            elif len(seen) == 2:
                with seed.database.write() as connection:
                    held = jobs.lock(connection, job.id)
                    jobs.move(connection, held, JobStatus.CANCELLED, reason="cancelled")
    assert seen == [("running", None), ("running", "cancel"), ("cancelled", None)]


def test_metrics_of_many_pages_come_as_one(client: Client, seed: Seed) -> None:
    job = seed.running()
    seed.points(job, {"val_loss": [float(n) for n in range(450)], "lr": [0.1] * 450})
    with client:
        assert [point.value for point in client.metrics(job.id, keys=["val_loss"])] == [float(n) for n in range(450)]
        assert len(list(client.metrics(job.id, from_step=4001))) == 2 * 50


def test_logs_are_read_and_followed_to_the_end(client: Client, seed: Seed) -> None:
    job = seed.running()
    seed.log(job, "epoch 1 ✓\nepoch 2 ✓\n")
    with client:
        assert client.logs(job.id) == "epoch 1 ✓\nepoch 2 ✓\n"
        assert client.logs(job.id, tail=1) == "epoch 2 ✓\n"
        text = ""
        for part in client.follow_logs(job.id, poll_seconds=0.01):
            text += part
            if text.endswith("epoch 2 ✓\n"):
                seed.log(job, "epoch 1 ✓\nepoch 2 ✓\nepoch 3 ✓\n")
                client.cancel(job.id)
                with seed.database.write() as connection:
                    held = jobs.lock(connection, job.id)
                    jobs.move(connection, held, JobStatus.CANCELLED, reason="cancelled")
    assert text == "epoch 1 ✓\nepoch 2 ✓\nepoch 3 ✓\n"


def test_following_the_log_of_a_job_that_never_ran_ends(client: Client, seed: Seed) -> None:
    job = seed.queued()
    with client:
        client.cancel(job.id)
        assert list(client.follow_logs(job.id, poll_seconds=0.01)) == []


def test_a_download_is_verified_and_named_only_then(client: Client, seed: Seed, tmp_path: Path) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT})
    target = tmp_path / "model.safetensors"
    with client:
        artifact = client.download(job.id, "model.safetensors", target)
        assert (artifact.sha256, artifact.bytes) == (SHA256, len(CONTENT))
        assert target.read_bytes() == CONTENT
        assert list(tmp_path.glob(".*.part")) == []


def test_an_interrupted_download_is_continued(server: Server, seed: Seed, tmp_path: Path) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT})
    part = tmp_path / f".model.safetensors.{SHA256[:16]}.part"
    part.write_bytes(CONTENT[:2_000_000])
    fetched: list[str | None] = []

    class Recording(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            fetched.append(response.headers.get("content-range"))
            return response

    with Client(server.url, transport=Recording()) as client:
        client.download(job.id, "model.safetensors", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == CONTENT
    assert fetched == [None, "bytes 2000000-2999999/3000000"]


def test_a_damaged_download_is_thrown_away(client: Client, seed: Seed, tmp_path: Path) -> None:
    job = seed.succeeded({"model.safetensors": CONTENT})
    part = tmp_path / f".model.safetensors.{SHA256[:16]}.part"
    part.write_bytes(b"damaged" * 1000)
    with client:
        with pytest.raises(DigestMismatch, match=SHA256):
            client.download(job.id, "model.safetensors", tmp_path / "model.safetensors")
        assert list(tmp_path.iterdir()) == [seed.data_dir]
        client.download(job.id, "model.safetensors", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == CONTENT


def test_errors_have_their_own_classes(client: Client, seed: Seed, tmp_path: Path) -> None:
    failed, queued = seed.failed().id, seed.queued().id
    with client:
        with pytest.raises(NotFound):
            client.get("job_00000000000000000000000000")
        with pytest.raises(NotFound):
            client.get("../../healthz")
        with pytest.raises(Conflict) as conflict:
            client.cancel(failed)
        assert conflict.value.problem["job_status"] == "failed"
        with pytest.raises(InvalidRequest) as invalid:
            client.submit({**SPEC, "optimizer": {"type": "adamm"}})
        assert invalid.value.problem["errors"][0]["pointer"] == "/spec/optimizer/type"
        with pytest.raises(NoSuchArtifact, match="none yet"):
            client.download(queued, "model.safetensors", tmp_path / "x")


def test_a_server_that_is_away_is_unreachable() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1"):
        client.get("job_00000000000000000000000000")


def test_waiting_outlives_a_short_absence_of_the_server(seed: Seed, server: Server) -> None:
    job = seed.queued()
    asked = threading.Event()

    class Flaky(httpx.HTTPTransport):
        num_requests = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.num_requests += 1
            if self.num_requests in (2, 3):
                asked.set()
                raise httpx.ConnectError("connection refused")
            return super().handle_request(request)

    with Client(server.url, transport=Flaky()) as client:
        states = client.wait(job.id)
        assert next(states).status == "queued"
        with seed.database.write() as connection:
            intents.request_cancel(connection, job.id)
        assert next(states).status == "cancelled"
        assert asked.is_set()
