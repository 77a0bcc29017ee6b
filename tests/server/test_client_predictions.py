"""Predictions by both clients and by the command, from a server that runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from cnn.datasets import Digits
from server.client import AsyncClient, Client, Conflict, InvalidRequest, Unavailable
from server.prediction_schemas import MAX_IMAGES
from tests.server.predicting import picture, trained
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server
from tests.server.test_cli import Epochd
from worker.jobs import Job

NUM_FILES = MAX_IMAGES + 3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("trained")
    return trained({**SPEC, "training": {"epochs": 1}}, folder / "artifacts", folder / "data")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    images = Digits().load(folder / "data").test_images
    for number in range(NUM_FILES):
        (folder / f"{number:03}.png").write_bytes(picture(images[number]))
    return sorted(folder.glob("*.png"))


@pytest.fixture
def job(seed: Seed, files: dict[str, bytes]) -> Job:
    return seed.succeeded(files)


def test_files_and_bytes_are_predicted_by_both_clients(server: Server, job: Job, paths: list[Path]) -> None:
    async def ask() -> object:
        async with AsyncClient(server.url) as client:
            return (await client.predict(job.id, [paths[0], paths[1].read_bytes()], top_k=2)).data

    with Client(server.url) as client:
        answer = client.predict(job.id, [paths[0], paths[1].read_bytes()], top_k=2)
    assert [(image.name, len(image.predictions)) for image in answer.data] == [("000.png", 2), ("1", 2)]
    assert asyncio.run(ask()) == answer.data


def test_arrays_are_predicted_by_both_clients_and_the_command(server: Server, job: Job, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    several, one = tmp_path / "several.npy", tmp_path / "one.npz"
    np.save(several, images)
    np.savez(one, images[1])

    async def ask() -> object:
        async with AsyncClient(server.url) as client:
            return (await client.predict(job.id, [several, one], layout="NHW")).data

    with Client(server.url) as client:
        answer = client.predict(job.id, [several, one], layout="NHW").data
        with pytest.raises(InvalidRequest, match="expected NHWC"):
            client.predict(job.id, [one.read_bytes()], layout="NHWC")
    assert asyncio.run(ask()) == answer
    assert [(image.name, image.position) for image in answer] == [
        ("several.npy", 0), ("several.npy", 1), ("several.npy", 2), ("one.npz", None)
    ]  # fmt: skip
    assert answer[1].predictions == answer[3].predictions
    epochd = Epochd(server.url)
    # Two of these are more than a request may have.
    np.save(several, np.concatenate([images] * (MAX_IMAGES // 3)))
    told = epochd("predict", job.id, str(several), str(several), str(one), "--json").stdout.splitlines()
    assert len(told) == 2 * 3 * (MAX_IMAGES // 3) + 1
    rows = [line.split() for line in epochd("predict", job.id, str(several), "--layout", "NHW").stdout.splitlines()]
    assert [row[0] for row in rows[1:3]] == ["several.npy[0]", "several.npy[1]"]
    assert epochd("predict", job.id, str(one), "--layout", "NHWC").exit_code == 2


def test_what_is_wrong_is_an_error_of_its_kind(server: Server, seed: Seed, job: Job, paths: list[Path]) -> None:
    with Client(server.url) as client:
        with pytest.raises(InvalidRequest) as invalid:
            client.predict(job.id, [paths[0], b"no image"])
        assert [item["image"] for item in invalid.value.problem["errors"]] == [1]
        with pytest.raises(Conflict, match="it is queued"):
            client.predict(seed.queued().id, [paths[0]])


def test_a_damaged_network_is_no_fault_of_the_client(server: Server, seed: Seed, files: dict[str, bytes]) -> None:
    job = seed.succeeded({**files, "model.onnx": b"damaged"})
    with Client(server.url) as client:
        with pytest.raises(Unavailable, match="the network has not answered"):
            client.predict(job.id, [b"image"])
        assert client.get(job.id).status == "succeeded"


def test_the_command_names_what_images_show(server: Server, job: Job, paths: list[Path]) -> None:
    epochd = Epochd(server.url)
    told = epochd("predict", job.id, *map(str, paths), "--top-k", "3", "--json").stdout.splitlines()
    images = [json.loads(line) for line in told]
    assert [image["name"] for image in images] == [path.name for path in paths]
    assert {len(image["predictions"]) for image in images} == {3}
    rows = [line.split() for line in epochd("predict", job.id, str(paths[0])).stdout.splitlines()]
    best = images[0]["predictions"][0]
    assert rows[1][:3] == ["000.png", best["label"], f"{best['probability']:.1%}"]


def test_the_command_says_which_file_is_wrong(server: Server, job: Job, paths: list[Path], tmp_path: Path) -> None:
    epochd = Epochd(server.url)
    (tmp_path / "words.png").write_text("no image")
    done = epochd("predict", job.id, str(paths[0]), str(tmp_path / "words.png"))
    assert done.exit_code == 2
    assert 'image 1, "words.png": expected an image as PNG' in done.stderr
    done = epochd("predict", job.id, str(tmp_path / "absent.png"))
    assert (done.exit_code, "absent.png: No such file" in done.stderr) == (2, True)
