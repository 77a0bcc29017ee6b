"""Streams over real sockets: nothing is lost or repeated, and nobody is held up."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from server.app import create_app
from tests.server.problems import assert_problem
from tests.server.seeding import Seed
from tests.server.serving import Server, serving
from worker.jobs import Job, JobStatus
from worker.settings import Settings
from worker.store import events, intents, jobs, keys

STREAM = {"Accept": "text/event-stream"}
TERMINAL = "end"


class Connection:
    """A raw connection to a stream, which can be cut anywhere."""

    def __init__(self, server: Server, path: str, last_event_id: int | None = None) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=20)
        place = "" if last_event_id is None else f"Last-Event-ID: {last_event_id}\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{place}\r\n"
        self.socket.sendall(head.encode())

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self, num_bytes: int) -> bytes:
        """Up to so many bytes as they come over the wire; fewer only at the end of the stream."""
        received = b""
        while len(received) < num_bytes and (block := self.socket.recv(num_bytes - len(received))):
            received += block
        return received


def messages(text: str) -> Iterator[tuple[str, int | None, Any]]:
    """(type, id, data) of every message that is complete."""
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            yield fields["event"], int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])


def unchunked(wire: bytes) -> str:
    """The body, as far as it came, of an answer in chunks."""
    _, _, rest = wire.partition(b"\r\n\r\n")
    body = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body.decode("utf-8", "ignore")


def warn(seed: Seed, job: Job, count: int) -> None:
    for number in range(count):
        with seed.database.write() as connection:
            events.append(connection, job.id, "job.warning", {"number": number}, attempt=1)


def end(seed: Seed, job: Job) -> None:
    with seed.database.write() as connection:
        jobs.move(connection, jobs.lock(connection, job.id), JobStatus.CANCELLED, reason="cancelled")


def stored(seed: Seed, job: Job) -> list[events.Event]:
    with seed.database.read() as connection:
        return events.after(connection, job.id, 0, 10_000)


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.mark.parametrize("after", [0, 2, 4, 99])
def test_a_job_that_has_ended_is_told_to_the_end(http: httpx.Client, seed: Seed, after: int) -> None:
    job = seed.failed()
    expected = [(event.type, event.id) for event in stored(seed, job) if event.id > after]
    for headers, query in ((STREAM, f"?after={after}"), (STREAM | {"Last-Event-ID": str(after)}, "?after=1")):
        answer = http.get(f"/v1/jobs/{job.id}/events{query}", headers=headers)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        told = list(messages(answer.text))
        assert [(type, id) for type, id, _ in told] == [*expected, (TERMINAL, None)]
        assert told[-1][2] == {"status": "failed"}
    listed = http.get(f"/v1/jobs/{job.id}/events", params={"after": after}).json()["data"]
    assert [data for _, id, data in told if id is not None] == listed


def test_what_happens_is_told_while_it_happens(http: httpx.Client, seed: Seed) -> None:
    job = seed.running()
    seen = []
    with http.stream("GET", f"/v1/jobs/{job.id}/events?types=job.warning,job.intent", headers=STREAM) as answer:
        text = ""
        begun: dict[str, float] = {}
        for part in answer.iter_text():
            text += part
            seen = [data["data"] for type, _, data in messages(text) if type != TERMINAL]
            if "retry" in text and not begun:
                begun["warning"] = time.monotonic()
                warn(seed, job, 1)
            elif len(seen) == 1 and "intent" not in begun:
                assert time.monotonic() - begun["warning"] < 5
                begun["intent"] = time.monotonic()
                with seed.database.write() as connection:
                    intents.request_cancel(connection, job.id)
            elif len(seen) == 2 and "end" not in begun:
                begun["end"] = time.monotonic()
                assert begun["end"] - begun["intent"] < 5
                end(seed, job)
    assert seen == [{"number": 0}, {"from": None, "to": "cancel", "now": False}]
    assert text.endswith('event: end\ndata: {"status": "cancelled"}\n\n')


def test_five_hundred_cuts_lose_and_repeat_nothing(server: Server, seed: Seed) -> None:
    """A client that is cut after any number of bytes comes back with the last id that arrived whole."""
    job = seed.running()
    random_bytes = random.Random(0)

    def write() -> None:
        warn(seed, job, 400)
        end(seed, job)

    received: list[tuple[str, int, Any]] = []
    num_cuts = 0
    ended = False
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not ended:
            last = received[-1][1] if received else None
            with Connection(server, f"/v1/jobs/{job.id}/events", last) as connection:
                # The head of the answer is more than half of it.
                wire = connection.read(random_bytes.randrange(1, 800) if num_cuts < 500 else 10**6)
            num_cuts += not wire.endswith(b"0\r\n\r\n")
            for type, id, data in messages(unchunked(wire)):
                if id is None:
                    ended = True
                    assert (type, data) == (TERMINAL, {"status": "cancelled"})
                else:
                    received.append((type, id, data))
        writing.result()
    assert num_cuts == 500
    expected = [(event.type, event.id) for event in stored(seed, job)]
    assert [(type, id) for type, id, _ in received] == expected
    assert [data["data"] for _, _, data in received] == [event.data for event in stored(seed, job)]


def test_the_stream_of_all_jobs_is_cut_and_goes_on(server: Server, http: httpx.Client, seed: Seed) -> None:
    owned = [seed.running() for _ in range(3)]
    total = sum(len(stored(seed, job)) for job in owned) + 3 * 40
    cuts = random.Random(1)

    def write(job: Job) -> None:
        warn(seed, job, 40)

    received: list[tuple[int, Any]] = []
    deadline = time.monotonic() + 20
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, job) for job in owned]
        while len(received) < total:
            assert time.monotonic() < deadline
            with Connection(server, "/v1/events", received[-1][0] if received else 0) as connection:
                connection.socket.settimeout(cuts.uniform(0.05, 0.3))
                wire = b""
                try:
                    while len(wire) < 5000 and (block := connection.socket.recv(500)):
                        wire += block
                except TimeoutError:
                    pass
            received += [(id, data) for _, id, data in messages(unchunked(wire)) if id is not None]
        for future in writing:
            future.result()
    numbers = [number for number, _ in received]
    assert numbers == sorted(set(numbers))
    for job in owned:
        assert [data["id"] for _, data in received if data["job_id"] == job.id] == [e.id for e in stored(seed, job)]
    listed = []
    page = http.get("/v1/events", params={"limit": 50}).json()
    while listed.extend(page["data"]) or page["has_more"]:
        page = http.get("/v1/events", params={"limit": 50, "after": page["next_cursor"]}).json()
    assert [data for _, data in received] == listed


def test_a_stream_of_all_jobs_begins_now_and_says_where(server: Server, seed: Seed) -> None:
    seed.queued()  # which nobody may have numbered yet
    with Connection(server, "/v1/events?types=job.status") as connection:
        wire = b""
        while b"id: 1\n\n" not in wire:
            wire += connection.read(1)
        assert list(messages(unchunked(wire + b"\r\n"))) == []
        job = seed.queued()
        while b"data" not in wire or not wire.endswith(b"\n\n\r\n"):
            wire += connection.read(1)
    [(type, id, data)] = messages(unchunked(wire))
    assert (type, id, data["job_id"], data["number"]) == ("job.status", 2, job.id, 2)


def test_a_client_that_does_not_read_is_dropped(
    seed: Seed, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.streams.SEND_SECONDS", 0.2)
    app = create_app(settings)
    job = seed.running()
    with serving(app) as running, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((running.host, running.port))
        head = f"GET /v1/jobs/{job.id}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        slow.sendall(head.encode())
        tailer = app.state.services.tailer
        _until(lambda: tailer.num_listeners == 1)
        payload = {"text": "x" * 20_000}
        _until(lambda: _append(seed, job, payload) and tailer.num_listeners == 0)
        with httpx.Client(base_url=running.url) as http:
            assert http.get("/healthz").status_code == 200
            again = http.get(f"/v1/jobs/{job.id}/events", params={"after": 2}).json()["data"]
            assert again[0]["data"] == payload


def _append(seed: Seed, job: Job, payload: dict[str, Any]) -> bool:
    with seed.database.write() as connection:
        for _ in range(50):
            events.append(connection, job.id, "job.warning", payload, attempt=1)
    return True


def _until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_clients_that_leave_leave_nothing_behind(seed: Seed, settings: Settings) -> None:
    app = create_app(settings)
    job = seed.running()
    with serving(app) as running:
        tailer = app.state.services.tailer
        for _ in range(3):
            open_streams = [Connection(running, f"/v1/jobs/{job.id}/events") for _ in range(20)]
            _until(lambda: tailer.num_listeners == 20)
            for stream in open_streams:
                stream.__exit__()
            _until(lambda: tailer.num_listeners == 0)


def test_a_quiet_stream_shows_that_it_lives(server: Server, seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.streams.HEARTBEAT_SECONDS", 0.05)
    job = seed.running()
    with Connection(server, f"/v1/jobs/{job.id}/events") as connection:
        wire = b""
        while wire.count(b": heartbeat") < 3:
            wire += connection.read(1)


@pytest.mark.parametrize("last_event_id", ["x", "-1", "1.5", str(2**63)])
def test_a_bad_last_id_is_refused(http: httpx.Client, seed: Seed, last_event_id: str) -> None:
    for path in (f"/v1/jobs/{seed.queued().id}/events", "/v1/events"):
        answer = http.get(path, headers=STREAM | {"Last-Event-ID": last_event_id})
        assert answer.status_code == 422
        assert assert_problem(answer)["errors"][0]["parameter"] == "Last-Event-ID"


def test_a_stream_of_an_unknown_job_is_404(http: httpx.Client) -> None:
    assert http.get("/v1/jobs/job_00000000000000000000000000/events", headers=STREAM).status_code == 404


def test_no_more_streams_than_the_process_can_serve(
    server: Server, http: httpx.Client, seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.streams.MAX_STREAMS", 1)
    job = seed.running()
    with Connection(server, f"/v1/jobs/{job.id}/events") as first:
        first.read(20)
        answer = http.get("/v1/events", headers=STREAM)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert http.get("/v1/events").status_code == 200


def test_open_streams_do_not_hold_up_the_shutdown(seed: Seed, settings: Settings) -> None:
    job = seed.running()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        "EPOCHD_DATA_DIR": str(settings.data_dir),
        "EPOCHD_REDIS_URL": str(settings.redis_url),
        "EPOCHD_PORT": str(port),
        "EPOCHD_AUTH": "off",
    }
    where = Server("127.0.0.1", port)
    command = [sys.executable, "-m", "server"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE) as process:
        try:
            _until(lambda: _connects(where))
            streams = [Connection(where, f"/v1/jobs/{job.id}/events") for _ in range(30)]
            for stream in streams:
                stream.read(20)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=10)[0]
            assert time.monotonic() - begun < 3
        finally:
            process.kill()
    for stream in streams:
        assert stream.read(100_000).endswith(b"0\r\n\r\n")
        stream.__exit__()
    assert b"Traceback" not in said
    assert b"ERROR" not in said


def test_waiting_requests_do_not_hold_up_the_shutdown(seed: Seed, settings: Settings) -> None:
    app = create_app(settings)
    job = seed.running()
    with ThreadPoolExecutor(3) as pool:
        with serving(app) as running:
            waiting = [pool.submit(_wait, running, job) for _ in range(3)]
            _until(lambda: app.state.services.tailer.num_listeners == 3)
            begun = time.monotonic()
        assert time.monotonic() - begun < 3
        assert [future.result(timeout=5) for future in waiting] == [304] * 3


def _connects(where: Server) -> bool:
    try:
        socket.create_connection((where.host, where.port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait(where: Server, job: Job) -> int:
    """The status of a request that waits for a change that does not come."""
    with httpx.Client(base_url=where.url, timeout=30) as http:
        etag = http.get(f"/v1/jobs/{job.id}").headers["etag"]
        return http.get(f"/v1/jobs/{job.id}", headers={"If-None-Match": etag, "Prefer": "wait=60"}).status_code


def test_a_key_has_so_many_streams_and_others_have_theirs(
    seed: Seed, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.tailer.MAX_PER_KEY", 2)
    secrets = []
    for name in ("greedy", "other"):
        with seed.database.write() as c:
            secrets.append(keys.create(c, name=name, scope=keys.Scope.READ)[1])
    app = create_app(settings.model_copy(update={"auth": "keys"}))
    with serving(app) as running, httpx.Client(base_url=running.url, headers=STREAM) as http, ExitStack() as streams:
        greedy, other = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
        opened = [streams.enter_context(http.stream("GET", "/v1/events", headers=greedy)) for _ in range(2)]
        assert [stream.status_code for stream in opened] == [200, 200]
        _until(lambda: app.state.services.tailer.num_listeners == 2)
        refused = http.get("/v1/events", headers=greedy)
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_streams"
        assert refused.headers["retry-after"]
        assert http.get("/v1/jobs", headers={**greedy, "Accept": "application/json"}).status_code == 200
        with http.stream("GET", "/v1/events", headers=other) as stream:
            assert stream.status_code == 200
        opened[0].close()
        _until(lambda: app.state.services.tailer.num_listeners == 1)
        with http.stream("GET", "/v1/events", headers=greedy) as stream:
            assert stream.status_code == 200
