"""From a folder of images on somebody's disk to a trained network, through a whole epochd."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.integration.group import Group
from tests.integration.processes import wait_until

MODEL = {
    "type": "layers",
    "layers": [
        {"type": "conv2d", "out_channels": 8, "kernel_size": 3, "padding": "same"},
        {"type": "relu"},
        {"type": "flatten"},
        {"type": "linear", "out_features": 10},
    ],
}


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    group = Group(tmp_path / "epochd-data", EPOCHD_POLL_SECONDS="0.2")
    yield group
    group.close()


def digits_as_images() -> bytes:
    """A zip of scikit-learn's digits as PNG files, every fifth one for testing."""
    digits = load_digits()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            content = io.BytesIO()
            Image.fromarray((image * (255 / 16)).round().astype("uint8")).save(content, "PNG")
            split = "test" if number % 5 == 4 else "train"
            archive.writestr(f"digits/{split}/{label}/{number:04}.png", content.getvalue())
    return file.getvalue()


def test_training_on_an_uploaded_folder_of_images(group: Group) -> None:
    client, content = group.client, digits_as_images()
    digest = hashlib.sha256(content)
    announced = client.post("/v1/uploads", json={"bytes": len(content), "sha256": digest.hexdigest()}).json()
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
        "Content-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
    }
    client.patch(f"/v1/uploads/{announced['id']}", content=content, headers=headers).raise_for_status()
    body = {"upload_id": announced["id"], "name": "digits", "format": {"type": "image_folder", "channels": 1}}
    dataset: dict[str, Any] = client.post("/v1/datasets", json=body).raise_for_status().json()
    path = dataset["links"]["self"]
    wait_until(lambda: client.get(path).json()["status"] != "validating", seconds=60)
    dataset = client.get(path).json()
    assert dataset["status"] == "ready", dataset
    assert dataset["content"] | {"shape": [1, 8, 8], "num_train": 1438, "num_test": 359} == dataset["content"]
    spec = {
        "dataset": {"type": "registered", "id": dataset["id"]},
        "augmentation": [{"type": "translate", "max_shift": 0.1}],
        "model": MODEL,
        "optimizer": {"type": "adam", "lr": 0.01},
        "training": {"epochs": 5, "batch_size": 64},
    }
    job = client.post("/v1/jobs", json={"spec": spec}).raise_for_status().json()
    wait_until(lambda: client.get(job["links"]["self"]).json()["terminal"], seconds=120)
    job = client.get(job["links"]["self"]).json()
    assert job["status"] == "succeeded", job["error"]
    assert job["dataset"] == {"id": dataset["id"], "digest": dataset["content"]["digest"]}
    assert job["result"]["test_accuracy"] > 0.9
    augmented = f'{path}/samples?augmentation=[{{"type":"rotate","degrees":20}}]'
    wait_until(lambda: client.get(augmented).status_code != 202, seconds=60)
    sheet = client.get(augmented)
    assert (sheet.status_code, sheet.headers["content-type"]) == (200, "image/png"), sheet.text
    assert client.delete(path).status_code == 204
    assert client.get(job["links"]["self"]).json()["dataset"]["id"] == dataset["id"]
    retried = client.get(job["links"]["artifacts"]).json()["data"]
    assert retried[0]["name"] == "model.safetensors"
