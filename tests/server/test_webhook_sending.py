"""One attempt: what the receiver gets, and that the connection goes to the address that was checked."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server import webhook_sending
from server.receivers import AddressGuard
from server.webhook_sending import send, sign
from tests.server.receiving import Receiver, receiving
from worker.settings import parse_networks
from worker.store.deliveries import Claim, Delivery, DeliveryStatus, Outcome

pytestmark = pytest.mark.anyio

LOOPBACK = AddressGuard(parse_networks("127.0.0.0/8,::1/128"))
SECRET, OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
Resolve = Callable[[str, list[list[str]]], list[str]]


def claim(url: str, *secrets: str, body: str = '{"type":"webhook.test"}') -> Claim:
    now = datetime.now(UTC)
    delivery = Delivery(
        id="msg_00000000000000000000000001",
        webhook_id="wh_00000000000000000000000001",
        job_id=None,
        type="webhook.test",
        body=body,
        status=DeliveryStatus.PENDING,
        attempts=1,
        status_code=None,
        error=None,
        created_at=now,
        due_at=now,
        finished_at=None,
    )
    return Claim(delivery=delivery, url=url, secrets=secrets or (SECRET,))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Make a name mean the next of some lists of addresses each time that it is asked for; what was asked."""
    real = socket.getaddrinfo

    def install(name: str, answers: list[list[str]]) -> list[str]:
        asked: list[str] = []

        def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            if host != name:
                return real(host, port, *args, **options)
            asked.append(host)
            ips = answers[min(len(asked), len(answers)) - 1]
            families = [socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in ips]
            return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in zip(families, ips, strict=True)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return install


def test_the_signature_is_that_of_the_specifications_libraries() -> None:
    """The example of https://docs.svix.com/receiving/verifying-payloads/how-manual."""
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_message_arrives_signed_with_every_secret(receiver: Receiver) -> None:
    sent = claim(receiver.url, SECRET, OLD, body=json.dumps({"name": "日本\n"}))
    assert await send(sent, LOOPBACK) == Outcome(status_code=200)
    (got,) = receiver.received
    assert got.body.decode() == sent.delivery.body
    assert got.headers["webhook-id"] == sent.delivery.id
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.path == "/hooks"
    assert got.is_signed_with(SECRET)
    assert got.is_signed_with(OLD)
    assert not got.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (204, {}, Outcome(status_code=204)),
        (404, {}, Outcome(status_code=404, error="expected a status of 200 to 299, got 404")),
        (
            410,
            {"Retry-After": "soon"},
            Outcome(status_code=410, error="expected a status of 200 to 299, got 410", gone=True),
        ),
        (
            503,
            {"Retry-After": "120"},
            Outcome(
                status_code=503,
                error="expected a status of 200 to 299, got 503",
                retry_after=timedelta(seconds=120),
            ),
        ),
    ],
)
async def test_what_the_receiver_answers(
    receiver: Receiver, status: int, headers: dict[str, str], outcome: Outcome
) -> None:
    receiver.status, receiver.headers = status, headers
    assert await send(claim(receiver.url), LOOPBACK) == outcome


async def test_redirects_are_not_followed(receiver: Receiver) -> None:
    with receiving() as other:
        for status in (301, 302, 303, 307, 308):
            receiver.status, receiver.headers = status, {"Location": other.url}
            outcome = await send(claim(receiver.url), LOOPBACK)
            assert outcome.status_code == status
            assert "redirects are not followed: register the URL that it leads to" in str(outcome.error)
        assert other.received == []


async def test_the_connection_goes_to_the_address_that_was_checked(receiver: Receiver, resolve: Resolve) -> None:
    asked = resolve("receiver.test", [["127.0.0.1"], ["10.255.255.1"]])
    outcome = await send(claim(f"http://receiver.test:{receiver.port}/hooks"), LOOPBACK)
    assert outcome == Outcome(status_code=200)
    assert len(asked) == 1
    assert receiver.received[0].headers["host"] == f"receiver.test:{receiver.port}"


async def test_a_name_that_was_changed_to_a_private_address_is_refused(receiver: Receiver, resolve: Resolve) -> None:
    resolve("receiver.test", [["127.0.0.1"]])
    outcome = await send(claim(f"http://receiver.test:{receiver.port}/hooks"), AddressGuard(()))
    expected = "a host on the public internet or in a network of EPOCHD_WEBHOOK_ALLOW"
    assert outcome.error == f'expected {expected}, got "receiver.test" at 127.0.0.1'
    assert receiver.received == []


async def test_the_next_address_is_tried_where_one_does_not_connect(receiver: Receiver, resolve: Resolve) -> None:
    resolve("receiver.test", [["::1", "127.0.0.2", "127.0.0.1"]])
    assert await send(claim(f"http://receiver.test:{receiver.port}/"), LOOPBACK) == Outcome(status_code=200)
    assert len(receiver.received) == 1


async def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    outcome = await send(claim(f"http://127.0.0.1:{port}/"), LOOPBACK)
    assert outcome.status_code is None
    assert str(outcome.error).startswith("expected an answer, got ConnectError: ")


def _answering(answer: bytes, pause: float = 0.0) -> Iterator[int]:
    """The port of a server that reads a request, and sends these bytes, one after each pause."""
    stopping = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                for index in range(len(answer)) if pause else (0,):
                    connection.sendall(answer[index : index + 1] if pause else answer)
                    if stopping.wait(pause):
                        return
            except OSError:
                return  # the sender has hung up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        stopping.set()
        thread.join(10)


async def test_an_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sending, "TIMEOUT_SECONDS", 0.3)
    server = _answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000, pause=0.02)
    begun = time.monotonic()
    outcome = await send(claim(f"http://127.0.0.1:{next(server)}/"), LOOPBACK)
    assert time.monotonic() - begun < 5
    assert outcome.error == "expected an answer within 0.3 s, got none"
    next(server, None)


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, b""])
async def test_an_answer_that_is_none_is_a_failure(answer: bytes) -> None:
    server = _answering(answer)
    outcome = await send(claim(f"http://127.0.0.1:{next(server)}/"), LOOPBACK)
    assert str(outcome.error).startswith("expected an answer, got RemoteProtocolError: ")
    next(server, None)


async def test_an_endless_body_is_not_read() -> None:
    server = _answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 1_000_000)
    assert await send(claim(f"http://127.0.0.1:{next(server)}/"), LOOPBACK) == Outcome(status_code=200)
    next(server, None)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of receiver.test, and trusted."""
    path = tmp_path / "receiver.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=receiver.test", "-addext", "subjectAltName=DNS:receiver.test"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    path.write_text(path.read_text() + (tmp_path / "key.pem").read_text())
    webhook_sending._trust.cache_clear()
    yield path
    webhook_sending._trust.cache_clear()


async def test_over_tls_the_certificate_must_be_of_the_name_in_the_url(certificate: Path, resolve: Resolve) -> None:
    with receiving(certificate) as receiver:
        resolve("receiver.test", [["127.0.0.1"]])
        assert await send(claim(f"https://receiver.test:{receiver.port}/"), LOOPBACK) == Outcome(status_code=200)
        resolve("other.test", [["127.0.0.1"]])
        outcome = await send(claim(f"https://other.test:{receiver.port}/"), LOOPBACK)
        assert "CERTIFICATE_VERIFY_FAILED" in str(outcome.error)
        assert len(receiver.received) == 1
