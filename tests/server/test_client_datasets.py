"""Uploads by the clients on a bad network, and `epochd dataset`."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from server.cli import app
from server.client import AsyncClient, Client, InvalidRequest
from tests.server.cutting import cutting
from tests.server.seeding import Seed
from tests.server.serving import Server
from tests.worker.datasets.test_validation import good, zip_of
from worker.datasets import incoming
from worker.datasets.upkeep import Upkeep
from worker.settings import Settings

CONTENT = random.Random(5).randbytes(1_000_000)


@pytest.fixture(autouse=True)
def _small_parts_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.client.uploading.PART_BYTES", 50_000)
    monkeypatch.setattr("server.client.uploading.RECONNECT_SECONDS", 0.001)
    monkeypatch.setattr("server.client.following.RECONNECT_SECONDS", 0.001)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "set.zip"
    path.write_bytes(CONTENT)
    return path


class Cuts:
    """Cuts some of the parts, and counts them all."""

    def __init__(self, every: int, after: Callable[[int], int]) -> None:
        self.parts = 0
        self.cut = 0
        self._every = every
        self._after = after

    def __call__(self, head: bytes) -> int | None:
        if b"PATCH " not in head:
            return None
        self.parts += 1
        if self.parts % self._every:
            return None
        self.cut += 1
        return self._after(self.cut)


def test_an_upload_that_is_cut_sends_one_part_more_for_each_cut(server: Server, file: Path, seed: Seed) -> None:
    cuts = Cuts(2, lambda number: number % 2 * 10)  # while the part is sent, and while it is answered
    with cutting(server, cuts) as cut, Client(cut.url) as client:
        answer = client.datasets.upload(file)
    assert (answer.complete, answer.filename, answer.sha256) == (True, "set.zip", hashlib.sha256(CONTENT).hexdigest())
    assert cuts.cut >= 10
    assert cuts.parts <= 20 + cuts.cut
    assert incoming.upload_path(seed.data_dir, answer.id).read_bytes() == CONTENT


@pytest.mark.anyio
async def test_so_is_one_of_the_client_for_async_code(server: Server, file: Path, seed: Seed) -> None:
    with cutting(server, Cuts(3, lambda number: number % 3)) as cut:
        async with AsyncClient(cut.url) as client:
            answer = await client.datasets.upload(file)
            assert [dataset async for dataset in client.datasets.list()] == []
    assert incoming.upload_path(seed.data_dir, answer.id).read_bytes() == CONTENT


def test_another_process_goes_on_with_it_and_a_third_sends_nothing(server: Server, file: Path) -> None:
    with (
        cutting(server, Cuts(8, lambda _: 0)) as cut,
        Client(cut.url) as client,
        pytest.raises(Exception, match="answer"),
    ):
        client.datasets.upload(file, patience_seconds=-1)
    for expected in (13, 0):
        parts = Cuts(10**9, lambda _: 0)
        with cutting(server, parts) as cut, Client(cut.url) as client:
            assert client.datasets.upload(file).complete
        assert parts.parts == expected


def test_a_file_that_changes_while_it_is_sent_is_an_error(server: Server, file: Path) -> None:
    def change(head: bytes) -> None:
        if b"PATCH " in head:
            file.write_bytes(CONTENT[::-1])

    with cutting(server, change) as cut, Client(cut.url) as client, pytest.raises(InvalidRequest) as caught:
        client.datasets.upload(file)
    assert caught.value.problem["code"] == "upload_discarded"


@pytest.fixture
def keeping(seed: Seed, settings: Settings) -> Iterator[None]:
    """What a worker does about datasets."""
    upkeep = Upkeep(seed.database, settings.model_copy(update={"poll_seconds": 0.1}))
    upkeep.start()
    yield
    upkeep.stop()


@pytest.mark.usefixtures("keeping")
def test_a_dataset_from_a_file_to_its_samples(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of(good()))
    with Client(server.url) as client:
        upload = client.datasets.upload(path)
        dataset = client.datasets.register(upload.id, name="mine", format={"type": "image_folder"})
        dataset = client.datasets.wait(dataset.id, poll_seconds=0.05)
        assert (dataset.status, dataset.content and dataset.content.labels) == ("ready", ("ant", "bee"))
        assert list(client.datasets.list(statuses=["ready"])) == [dataset]
        with Image.open(io.BytesIO(client.datasets.samples(dataset.id))) as sheet:
            assert sheet.format == "PNG"
        client.datasets.delete(dataset.id)
        assert list(client.datasets.list()) == []


@pytest.mark.usefixtures("keeping")
def test_the_commands(server: Server, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["dataset", *arguments, "--url", server.url])
        return result.exit_code, result.output

    path = tmp_path / "set.zip"
    path.write_bytes(zip_of(good()))
    code, output = run("upload", str(path), "--name", "[mine]", "--channels", "1", "--image-size", "9", "8", "--json")
    dataset = json.loads(output)
    assert (code, dataset["status"], dataset["content"]["shape"]) == (0, "ready", [1, 9, 8])
    code, output = run("ls")
    assert (code, "[mine]" in output, "12" in output) == (0, True, True)
    code, output = run("show", dataset["id"])
    assert (code, "8 train, 4 test, 2 classes, 1 x 9 x 8" in output) == (0, True)
    code, output = run("samples", dataset["id"], "-o", str(tmp_path / "a.png"))
    assert (code, (tmp_path / "a.png").read_bytes()[:4]) == (0, b"\x89PNG")
    assert run("delete", dataset["id"]) == (0, f"{dataset['id']} is deleted\n")
    assert run("show", dataset["id"])[0] == 4
    folder = tmp_path / "my images"
    for name, content in {**good(), ".DS_Store": b"x", "train/ant/.hidden": b"x"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    documents = [json.loads(run("upload", str(folder), "--json")[1]) for _ in range(2)]
    assert [(each["status"], each["name"]) for each in documents] == [("ready", "my images")] * 2
    assert documents[0]["upload_sha256"] == documents[1]["upload_sha256"]
    assert documents[0]["content"]["num_train"] == 8
    path.write_bytes(zip_of({**good(), "train/ant/0.png": b"x"}))
    code, output = run("upload", str(path))
    assert (code, "error: unreadable_image" in output, "train/ant/0.png" in output) == (1, True, True)
    path.write_bytes(zip_of({name.removeprefix("train/"): content for name, content in good().items()}))
    code, output = run("upload", str(path))
    assert (code, "  -> --test-fraction 0.2\n" in output) == (1, True)
    assert run("upload", str(path), "--format", "zip")[0] == 2
    assert run("upload", str(tmp_path / "none.zip"))[0] == 2
