"""What a job's network says of images over HTTP, against the network itself in torch."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load
from sqlalchemy import update
from starlette.concurrency import run_in_threadpool

from cnn.data import Data
from cnn.datasets import Digits
from cnn.formats.image_folder import decode
from cnn.models import build_network
from cnn.spec import TrainingSpec
from server.prediction_schemas import MAX_BYTES, MAX_IMAGES
from tests.server.predicting import picture, trained
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed
from worker.jobs import Job
from worker.settings import Settings
from worker.store import events, tables

pytestmark = pytest.mark.anyio

HOW_TO = Path(__file__).parents[2] / "docs" / "predict.md"
MIRRORED = {**SPEC, "training": {"test_time_augmentation": "horizontal_flip"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Digits().load(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("trained")
    return trained({**SPEC, "training": {"epochs": 1}}, folder / "artifacts", folder / "data")


@pytest.fixture
def job(seed: Seed, files: dict[str, bytes]) -> Job:
    return seed.succeeded(files)


@torch.inference_mode()
def expected(files: dict[str, bytes], images: NDArray[np.uint8], mirror: bool = False) -> NDArray[np.float64]:
    """The probabilities of the classes by the delivered weights in torch."""
    network = build_network(TrainingSpec.model_validate(SPEC))
    network.load_state_dict(load(files["model.safetensors"]))
    network.eval()
    inputs = torch.from_numpy(images.copy())
    logits = network(inputs)
    if mirror:
        logits = (logits + network(inputs.flip(3))) / 2
    probabilities: NDArray[np.float64] = logits.double().softmax(dim=1).numpy()
    return probabilities


def by_class(image: dict[str, Any]) -> list[float]:
    return [one["probability"] for one in sorted(image["predictions"], key=lambda one: one["index"])]


def form(*contents: bytes, field: str = "image") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (f"{number}.png", content)) for number, content in enumerate(contents)]


@pytest.mark.parametrize("mirror", [False, True])
async def test_images_of_the_test_split_get_the_probabilities_of_the_evaluation(
    http: httpx.AsyncClient, seed: Seed, files: dict[str, bytes], data: Data, mirror: bool
) -> None:
    job = seed.succeeded(files)
    if mirror:
        with seed.database.write() as c:
            c.execute(update(tables.jobs).where(tables.jobs.c.id == job.id).values(spec=MIRRORED))
    images = data.test_images[:MAX_IMAGES]
    path = f"/v1/jobs/{job.id}/predict"
    response = await http.post(path, params={"top_k": 10}, files=form(*map(picture, images)))
    assert response.status_code == 200, response.text
    answer = response.json()
    wanted = expected(files, images, mirror)
    np.testing.assert_allclose([by_class(image) for image in answer["data"]], wanted, atol=1e-4)
    assert [image["predictions"][0]["index"] for image in answer["data"]] == wanted.argmax(axis=1).tolist()
    labels = json.loads(files["labels.json"])
    for number, image in enumerate(answer["data"]):
        shares = [one["probability"] for one in image["predictions"]]
        assert shares == sorted(shares, reverse=True)
        assert all(one["label"] == labels[one["index"]] for one in image["predictions"])
        assert (image["name"], image["height"], image["width"], image["warnings"]) == (f"{number}.png", 8, 8, [])
    artifacts = (await http.get(f"/v1/jobs/{job.id}/artifacts")).json()["data"]
    assert answer["model"] == "model.onnx"
    assert answer["sha256"] in [each["sha256"] for each in artifacts if each["name"] == "model.onnx"]
    assert set(answer["timings"]) == {"wait_seconds", "decode_seconds", "model_seconds"}


@pytest.mark.parametrize(
    "content_type", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", None]
)
async def test_one_image_may_be_the_whole_body(
    http: httpx.AsyncClient, job: Job, files: dict[str, bytes], data: Data, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    content = picture(data.test_images[0])
    response = await http.post(f"/v1/jobs/{job.id}/predict", params={"top_k": 3}, content=content, headers=headers)
    assert response.status_code == 200, response.text
    (image,) = response.json()["data"]
    assert image["name"] is None
    best = np.argsort(-expected(files, data.test_images[:1])[0])[:3]
    assert [one["index"] for one in image["predictions"]] == best.tolist()


async def test_images_are_converted_as_training_images_are(
    http: httpx.AsyncClient, job: Job, files: dict[str, bytes], data: Data, tmp_path: Path
) -> None:
    """Grey from RGB, resized to the size of the network's images; said is what is not seen."""
    colour = np.random.default_rng(0).integers(0, 256, (3, 21, 34), dtype=np.uint8)
    alpha = tmp_path / "alpha.png"
    Image.fromarray(np.dstack([*colour, np.full((21, 34), 7, np.uint8)])).save(alpha)
    sent = [picture(colour), picture(colour, "webp"), picture(data.test_images[0], "bmp", (16, 24)), alpha.read_bytes()]
    response = await http.post(f"/v1/jobs/{job.id}/predict?top_k=10", files=form(*sent))
    answer = response.json()["data"]
    pixels = []
    for number, content in enumerate(sent):
        (tmp_path / str(number)).write_bytes(content)
        pixels.append(decode(tmp_path / str(number), (8, 8), 1))
    np.testing.assert_allclose([by_class(image) for image in answer], expected(files, np.stack(pixels)), atol=1e-4)
    assert [(image["height"], image["width"]) for image in answer] == [(21, 34), (21, 34), (24, 16), (21, 34)]
    assert [image["warnings"] for image in answer] == [[], [], [], ["transparency"]]


async def test_a_bad_image_is_named_with_what_is_wrong(http: httpx.AsyncClient, job: Job, data: Data) -> None:
    good = picture(data.test_images[0])
    huge = good[:16] + (60_000).to_bytes(4, "big") * 2 + good[24:]
    response = await http.post(f"/v1/jobs/{job.id}/predict", files=form(good, b"GIF89a no", good[:60], b"", huge))
    assert response.status_code == 422
    problem = assert_problem(response)
    assert [(item["image"], item["code"]) for item in problem["errors"]] == [
        (i, "unusable_image") for i in (1, 2, 3, 4)
    ]
    messages = [item["message"] for item in problem["errors"]]
    assert (
        messages[0]
        == 'image 1, "1.png": expected an image as PNG, JPEG, WEBP, BMP, or an array as NPY or NPZ, got something else'
    )
    assert not [message for message in messages if "BytesIO" in message]
    assert problem["detail"].startswith("4 of 5 images cannot be used: image 1")


@pytest.mark.parametrize(
    ("content", "content_type", "status_code", "code"),
    [
        (b"", "image/png", 422, "invalid_request"),
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 400, "malformed_body"),
        (b"x", "multipart/form-data; boundary=abc", 400, "malformed_body"),
        (b"--abc--\r\n", "multipart/form-data; boundary=abc", 422, "invalid_request"),
        (b"x" * (MAX_BYTES + 1), "image/png", 413, "content_too_large"),
    ],
)
async def test_what_is_no_image_is_refused(
    http: httpx.AsyncClient, job: Job, content: bytes, content_type: str, status_code: int, code: str
) -> None:
    path = f"/v1/jobs/{job.id}/predict"
    response = await http.post(path, content=content, headers={"Content-Type": content_type})
    assert (response.status_code, assert_problem(response)["code"]) == (status_code, code)


async def test_more_images_than_allowed_are_refused(http: httpx.AsyncClient, job: Job, data: Data) -> None:
    image = picture(data.test_images[0])
    response = await http.post(f"/v1/jobs/{job.id}/predict", files=form(*[image] * (MAX_IMAGES + 1)))
    assert response.status_code == 422
    assert f"expected 1 to {MAX_IMAGES} images" in assert_problem(response)["detail"]


async def test_compressed_bodies_and_bad_parameters_are_refused(http: httpx.AsyncClient, job: Job) -> None:
    path = f"/v1/jobs/{job.id}/predict"
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    assert (await http.post(path, content=b"x", headers=headers)).status_code == 415
    for query in ("top_k=0", "top_k=101", "topk=3"):
        assert (await http.post(f"{path}?{query}", content=b"x")).status_code == 422


async def test_a_job_without_an_exported_network_says_why(http: httpx.AsyncClient, seed: Seed) -> None:
    for job, reason in (
        (seed.queued(), "it is queued"),
        (seed.running(), "it is running"),
        (seed.failed(), "it is failed"),
        (_not_exported(seed), "there is no model.onnx: torch cannot write this network as ONNX: no such operator"),
    ):
        response = await http.post(f"/v1/jobs/{job.id}/predict", content=b"x")
        assert response.status_code == 409
        problem = assert_problem(response)
        assert problem["code"] == "model_missing"
        assert reason in problem["detail"]
        assert problem["job_status"] == str(job.status)
        assert "allowed_actions" in problem


def _not_exported(seed: Seed) -> Job:
    job = seed.succeeded({"model.safetensors": b"weights", "labels.json": b"[]"})
    with seed.database.write() as c:
        for message in (
            "something else",
            "there is no model.onnx: torch cannot write this network as ONNX: no such operator",
        ):
            events.append(c, job.id, "job.warning", {"message": message}, 1)
    return job


async def test_predictions_are_counted_and_logged(
    http: httpx.AsyncClient, job: Job, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for images in (1, 2):
        await http.post(f"/v1/jobs/{job.id}/predict", files=form(*map(picture, data.test_images[:images])))
    text = (await http.get("/metrics")).text
    counted = dict(re.findall(r"^(epochd_predict\w+) (\S+)$", text, re.MULTILINE))
    assert float(counted["epochd_predicted_images_total"]) == 3
    assert float(counted["epochd_predictor_starts_total"]) == 1
    assert float(counted["epochd_predictor_failures_total"]) == 0
    assert float(counted["epochd_predictors"]) == 1
    assert float(counted["epochd_predictions_total"]) == 2
    assert float(counted["epochd_prediction_seconds_total"]) > 0
    assert set(re.findall("`(epochd_predict[a-z_]+)`", HOW_TO.read_text())) == set(counted)
    assert [m for m in caplog.messages if m.startswith(f"{job.id}: 2 images predicted in")]


async def test_the_api_loads_nothing_that_predicts(job: Job, data: Data, settings: Settings) -> None:
    code = """
import asyncio, sys
from pathlib import Path
import httpx
from server.app import create_app
from worker.settings import Settings

async def main():
    app = create_app(Settings(data_dir=Path(sys.argv[1]), redis_url="redis://127.0.0.1:1/0", auth="off"))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    async with app.router.lifespan_context(app), client:
        answer = await client.post(f"/v1/jobs/{sys.argv[2]}/predict", content=sys.stdin.buffer.read())
        print(answer.status_code, [name for name in ("numpy", "onnxruntime", "PIL", "torch") if name in sys.modules])

asyncio.run(main())
"""
    command = [sys.executable, "-c", code, str(settings.data_dir), job.id]
    done = await run_in_threadpool(
        subprocess.run, command, input=picture(data.test_images[0]), capture_output=True, timeout=120, check=True
    )
    assert done.stdout.decode() == "200 []\n", done.stderr.decode()
