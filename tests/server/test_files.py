"""Artifacts and logs over HTTP: ranges, validators, digests."""

from __future__ import annotations

import base64
import hashlib

import httpx
import pytest

from tests.server.problems import assert_problem
from tests.server.seeding import Seed

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(seed: Seed) -> str:
    job = seed.succeeded({"model.safetensors": CONTENT, "labels.json": b"[]", "empty.txt": b""})
    return f"/v1/jobs/{job.id}/artifacts"


async def test_the_list_has_the_weights_first(http: httpx.AsyncClient, path: str) -> None:
    page = (await http.get(path)).json()
    assert [artifact["name"] for artifact in page["data"]] == ["model.safetensors", "empty.txt", "labels.json"]
    weights = page["data"][0]
    assert (weights["bytes"], weights["sha256"], weights["step"]) == (len(CONTENT), SHA256, 20)
    assert page["has_more"] is False


async def test_a_download_says_what_it_is(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(f"{path}/model.safetensors")
    assert response.status_code == 200
    assert response.content == CONTENT
    headers = response.headers
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["etag"] == f'"{SHA256}"'
    assert headers["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()}:"
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''model.safetensors"
    assert headers["x-content-type-options"] == "nosniff"


async def test_head_says_the_same_without_the_bytes(http: httpx.AsyncClient, path: str) -> None:
    head = await http.head(f"{path}/model.safetensors")
    get = await http.get(f"{path}/model.safetensors")
    assert (head.status_code, head.content) == (200, b"")
    ignored = {"x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in get.headers.items() if k not in ignored
    }


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=1023000-", 1_023_000, 1_024_000),
        ("bytes=-10", 1_023_990, 1_024_000),
        ("bytes=-9999999", 0, 1_024_000),
        ("bytes=1023999-9999999", 1_023_999, 1_024_000),
    ],
)
async def test_a_range_gives_that_part(http: httpx.AsyncClient, path: str, header: str, start: int, stop: int) -> None:
    response = await http.get(f"{path}/model.safetensors", headers={"Range": header})
    assert response.status_code == 206
    assert response.content == CONTENT[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert response.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=-", "bytes=0-1,5-6", "bytes", ""])
async def test_a_range_that_means_nothing_gives_the_whole(http: httpx.AsyncClient, path: str, header: str) -> None:
    response = await http.get(f"{path}/model.safetensors", headers={"Range": header})
    assert (response.status_code, len(response.content)) == (200, len(CONTENT))


@pytest.mark.parametrize(("name", "header"), [("model.safetensors", "bytes=1024000-"), ("empty.txt", "bytes=0-")])
async def test_a_range_behind_the_end_is_416(http: httpx.AsyncClient, path: str, name: str, header: str) -> None:
    response = await http.get(f"{path}/{name}", headers={"Range": header})
    assert response.status_code == 416
    size = len(CONTENT) if name == "model.safetensors" else 0
    assert response.headers["content-range"] == f"bytes */{size}"
    assert str(size) in assert_problem(response)["detail"]


@pytest.mark.parametrize(
    ("if_range", "status_code"),
    [(f'"{SHA256}"', 206), ('"another"', 200), (f'W/"{SHA256}"', 200), ("Tue, 24 Nov 2026 00:00:00 GMT", 200)],
)
async def test_if_range_continues_only_the_same_file(
    http: httpx.AsyncClient, path: str, if_range: str, status_code: int
) -> None:
    headers = {"Range": "bytes=1000-", "If-Range": if_range}
    response = await http.get(f"{path}/model.safetensors", headers=headers)
    assert response.status_code == status_code
    assert response.content == (CONTENT[1000:] if status_code == 206 else CONTENT)


async def test_a_file_that_the_client_has_is_304(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(f"{path}/model.safetensors", headers={"If-None-Match": f'"{SHA256}"'})
    assert (response.status_code, response.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["other.txt", "..%2f..%2fepochd.db", "%2e%2e", "model.safetensors%00", "%2Fetc%2Fpasswd", "a%5Cb", "%23"]
)
async def test_only_listed_names_are_served(http: httpx.AsyncClient, path: str, name: str) -> None:
    response = await http.get(f"{path}/{name}")
    assert response.status_code == 404
    assert_problem(response)


async def test_a_lost_blob_is_an_error_of_the_server_with_an_id(http: httpx.AsyncClient, path: str, seed: Seed) -> None:
    (seed.data_dir / "blobs" / SHA256[:2] / SHA256).unlink()
    response = await http.get(f"{path}/model.safetensors", headers={"X-Request-Id": "mine-1"})
    assert response.status_code == 500
    assert assert_problem(response)["request_id"] == "mine-1"


async def test_a_log_is_text_and_grows(http: httpx.AsyncClient, seed: Seed) -> None:
    job = seed.running()
    path = f"/v1/jobs/{job.id}/logs"
    empty = await http.get(path)
    assert (empty.status_code, empty.text) == (200, "")
    seed.log(job, "epoch 1\n")
    first = await http.get(path)
    assert first.headers["content-type"] == "text/plain; charset=utf-8"
    assert first.text == "epoch 1\n"
    waiting = await http.get(path, headers={"Range": "bytes=8-"})
    assert waiting.status_code == 416
    seed.log(job, "epoch 1\nepoch 2 ✓\n")
    grown = await http.get(path, headers={"Range": "bytes=8-"})
    assert (grown.status_code, grown.text) == (206, "epoch 2 ✓\n")
    assert "etag" not in grown.headers
    assert (await http.head(path)).headers["content-length"] == str(8 + len("epoch 2 ✓\n".encode()))


@pytest.mark.parametrize(
    ("text", "tail", "expected"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\nc\n", 9, "a\nb\nc\n"),
        ("a\nb\nc\n", 0, ""),
        ("", 3, ""),
        ("\n\n\n", 2, "\n\n"),
        ("x" * 300_000 + "\n" + "y" * 300_000 + "\n", 1, "y" * 300_000 + "\n"),
    ],
)
async def test_the_tail_of_a_log(http: httpx.AsyncClient, seed: Seed, text: str, tail: int, expected: str) -> None:
    job = seed.running()
    seed.log(job, text)
    response = await http.get(f"/v1/jobs/{job.id}/logs", params={"tail": tail})
    assert response.text == expected


@pytest.mark.parametrize("tail", ["-1", "x", "1e3"])
async def test_a_bad_tail_is_refused(http: httpx.AsyncClient, seed: Seed, tail: str) -> None:
    response = await http.get(f"/v1/jobs/{seed.queued().id}/logs?tail={tail}")
    assert response.status_code == 422
    assert_problem(response)
