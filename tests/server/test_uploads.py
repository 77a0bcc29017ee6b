"""Uploads over a real uvicorn: parts, cuts, digests, offsets, limits."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from server.middleware import MAX_PART_BYTES
from tests.integration.processes import wait_until
from tests.server.problems import assert_problem
from tests.server.seeding import Seed
from tests.server.serving import Server
from worker.datasets import incoming
from worker.settings import Settings
from worker.store.dataset_tables import uploads

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEDIA_TYPE = "application/offset+octet-stream"


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def announce(client: httpx.Client, content: bytes = CONTENT, **fields: Any) -> httpx.Response:
    body = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "filename": "set.zip", **fields}
    return client.post("/v1/uploads", json=body)


def headers_of(part: bytes, offset: int) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
    return {"Content-Type": MEDIA_TYPE, "Upload-Offset": str(offset), "Content-Digest": f"sha-256=:{digest}:"}


def head_of(path: str, part: bytes, offset: int) -> bytes:
    lines = {**headers_of(part, offset), "Host": "127.0.0.1", "Content-Length": str(len(part))}
    return "\r\n".join([f"PATCH {path} HTTP/1.1", *map(": ".join, lines.items()), "\r\n"]).encode()


def send(client: httpx.Client, path: str, offset: int, part: bytes, **headers: str) -> httpx.Response:
    return client.patch(path, content=part, headers={**headers_of(part, offset), **headers})


def offset_of(client: httpx.Client, path: str) -> int:
    response = client.head(path)
    assert response.content == b""
    return int(response.headers["upload-offset"])


def test_a_file_in_parts(client: httpx.Client, settings: Settings) -> None:
    response = announce(client)
    assert response.status_code == 201
    path = response.headers["location"]
    assert response.json() | {"offset": 0, "complete": False, "sha256": SHA256} == response.json()
    assert path == f"/v1/uploads/{response.json()['id']}"
    for start in range(0, len(CONTENT), 65_537):
        assert offset_of(client, path) == start
        answer = send(client, path, start, CONTENT[start : start + 65_537])
        assert answer.status_code == 200, answer.text
        assert int(answer.headers["upload-offset"]) == min(start + 65_537, len(CONTENT))
    assert answer.json()["complete"]
    assert client.get(path).json() == answer.json()
    stored = incoming.upload_path(settings.data_dir, response.json()["id"])
    assert stored.read_bytes() == CONTENT
    assert stored.stat().st_mode & 0o777 == 0o600


def test_announcing_again_finds_what_has_come_and_what_is_complete(client: httpx.Client) -> None:
    first = announce(client).json()
    path = f"/v1/uploads/{first['id']}"
    send(client, path, 0, CONTENT[:1000])
    again = announce(client)
    assert (again.status_code, again.json()["id"], again.json()["offset"]) == (200, first["id"], 1000)
    send(client, path, 1000, CONTENT[1000:])
    done = announce(client, filename="other.zip")
    assert (done.status_code, done.json()["id"], done.json()["complete"]) == (200, first["id"], True)
    assert announce(client, CONTENT[1:]).status_code == 201


def test_a_part_at_another_offset_is_told_the_right_one(client: httpx.Client) -> None:
    path = announce(client).headers["location"]
    send(client, path, 0, CONTENT[:500])
    for offset in (0, 400, 501, 10**12):
        response = send(client, path, offset, CONTENT[:100])
        assert_problem(response)
        assert (response.status_code, response.headers["upload-offset"]) == (409, "500")
    send(client, path, 500, CONTENT[500:])
    assert send(client, path, len(CONTENT), b"").status_code == 409


def test_a_damaged_part_leaves_the_offset_as_it_was(client: httpx.Client) -> None:
    path = announce(client).headers["location"]
    send(client, path, 0, CONTENT[:500])
    damaged = client.patch(path, content=b"x" * 100, headers=headers_of(CONTENT[500:600], 500))
    assert (damaged.status_code, assert_problem(damaged)["code"]) == (422, "digest_mismatch")
    assert (damaged.headers["upload-offset"], offset_of(client, path)) == ("500", 500)
    assert send(client, path, 500, CONTENT[500:]).json()["complete"]


def test_a_cut_part_leaves_the_offset_as_it_was_and_holds_nobody_up(client: httpx.Client, server: Server) -> None:
    path = announce(client).headers["location"]
    send(client, path, 0, CONTENT[:500])
    for cut in (0, 1, 70_000, 200_000):
        with socket.create_connection((server.host, server.port)) as raw:
            raw.sendall(head_of(path, CONTENT[500:], 500) + CONTENT[500 : 500 + cut])
        assert offset_of(client, path) == 500
    assert send(client, path, 500, CONTENT[500:]).json()["complete"]


def test_a_part_waits_for_the_one_before_it(client: httpx.Client, server: Server, settings: Settings) -> None:
    upload = announce(client).json()
    path = f"/v1/uploads/{upload['id']}"
    with socket.create_connection((server.host, server.port)) as raw, ThreadPoolExecutor(1) as pool:
        raw.sendall(head_of(path, CONTENT[:5000], 0) + CONTENT[:4000])
        wait_until(lambda: is_held(settings, upload["id"]))
        second = pool.submit(send, client, path, 0, CONTENT[:100])
        raw.sendall(CONTENT[4000:5000])
        assert b" 200 " in raw.recv(4096).partition(b"\r\n")[0]
        assert (second.result().status_code, second.result().headers["upload-offset"]) == (409, "5000")
    assert send(client, path, 5000, CONTENT[5000:]).json()["complete"]


def is_held(settings: Settings, upload_id: str) -> bool:
    with incoming.receiving(settings.data_dir, upload_id) as file:
        return file is None


def test_a_file_that_is_not_what_was_announced_is_thrown_away(client: httpx.Client, settings: Settings) -> None:
    response = announce(client, sha256="0" * 64)
    answer = send(client, response.headers["location"], 0, CONTENT)
    assert (answer.status_code, assert_problem(answer)["code"]) == (422, "upload_discarded")
    assert SHA256 in answer.json()["detail"]
    assert client.get(response.headers["location"]).status_code == 404
    assert list((settings.data_dir / "uploads").iterdir()) == []


def test_more_than_was_announced_is_refused(client: httpx.Client) -> None:
    path = announce(client, CONTENT[:1000]).headers["location"]
    response = send(client, path, 0, CONTENT[:1001])
    assert (response.status_code, response.headers["upload-offset"]) == (413, "0")
    assert send(client, path, 0, CONTENT[:1000]).json()["complete"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Digest": "md5=:abc=:"}, 422),
        ({"Content-Digest": "sha-256=:short=:"}, 422),
        ({"Upload-Offset": "-1"}, 422),
        ({"Upload-Offset": "x"}, 422),
        ({"Upload-Offset": str(2**63)}, 422),
    ],
)
def test_wrong_headers(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    path = announce(client).headers["location"]
    response = client.patch(path, content=b"x", headers={**headers_of(b"x", 0), **headers})
    assert_problem(response)
    assert response.status_code == status
    assert offset_of(client, path) == 0


def test_a_part_that_is_too_large(client: httpx.Client) -> None:
    part = bytes(MAX_PART_BYTES + 1)
    path = announce(client, part).headers["location"]
    assert send(client, path, 0, part).status_code == 413
    assert send(client, path, 0, part[1:]).headers["upload-offset"] == str(MAX_PART_BYTES)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"bytes": 0}, "/bytes"),
        ({"bytes": 2**63}, "/bytes"),
        ({"sha256": "F" * 64}, "/sha256"),
        ({"filename": "a\nb"}, "/filename"),
        ({"path": "/etc/passwd"}, "/path"),
    ],
)
def test_wrong_announcements(client: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    response = announce(client, **body)
    assert response.status_code in (400, 422)
    assert [item["pointer"] for item in assert_problem(response)["errors"]] == [pointer]


def test_files_beyond_the_limit_or_the_disk(
    client: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = announce(client, bytes=settings.max_upload_bytes + 1)
    assert (response.status_code, assert_problem(response)["code"]) == (413, "content_too_large")
    assert announce(client, CONTENT[:400]).status_code == 201
    monkeypatch.setattr(incoming, "RESERVE_BYTES", 2**62)
    for _ in range(2):  # a refused one is not there the second time
        response = announce(client, CONTENT)
        assert (response.status_code, assert_problem(response)["code"]) == (507, "insufficient_storage")
    assert announce(client, CONTENT[:400]).status_code == 200


def test_deleted_and_expired_uploads_are_gone(client: httpx.Client, seed: Seed) -> None:
    kept, deleted, expired = (announce(client, CONTENT[:number]).headers["location"] for number in (10, 20, 30))
    for path, size in ((kept, 10), (deleted, 20), (expired, 20)):
        send(client, path, 0, CONTENT[:size])
    assert client.delete(deleted).status_code == 204
    assert client.delete(deleted).status_code == 404
    long_ago = datetime.now(UTC) - timedelta(seconds=1)
    with seed.database.write() as c:
        c.execute(update(uploads).where(uploads.c.id == expired.rpartition("/")[2]).values(expires_at=long_ago))
    incoming.remove_expired(seed.database, seed.data_dir)
    assert [client.get(path).status_code for path in (kept, deleted, expired)] == [200, 404, 404]
    assert [path.name for path in (seed.data_dir / "uploads").iterdir()] == [kept.rpartition("/")[2]]


def test_a_part_for_an_upload_that_is_removed_meanwhile(
    client: httpx.Client, server: Server, seed: Seed, settings: Settings
) -> None:
    path = announce(client).headers["location"]
    with socket.create_connection((server.host, server.port)) as raw:
        raw.sendall(head_of(path, CONTENT[:5000], 0) + CONTENT[:4000])
        wait_until(lambda: is_held(settings, path.rpartition("/")[2]))
        assert client.delete(path).status_code == 204
        raw.sendall(CONTENT[4000:5000])
        assert b" 404 " in raw.recv(4096).partition(b"\r\n")[0]
    assert list((seed.data_dir / "uploads").iterdir()) == []


def test_the_file_of_an_upload_is_never_a_link(client: httpx.Client, settings: Settings, tmp_path: Path) -> None:
    upload = announce(client).json()
    (settings.data_dir / "uploads").mkdir()
    incoming.upload_path(settings.data_dir, upload["id"]).symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"), incoming.receiving(settings.data_dir, upload["id"]):
        pass
    assert not (tmp_path / "target").exists()
