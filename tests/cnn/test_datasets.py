from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load_file

from cnn.datasets import CIFAR10, CIFAR100, LOCAL_TYPES, MNIST, Dataset, Digits, FashionMNIST
from cnn.errors import DataCorrupt
from cnn.events import Metrics, Result
from cnn.fetch import fetch_fashion_mnist, install_files
from cnn.formats import cifar
from cnn.spec import TrainingSpec
from cnn.training import train
from tests.cnn.formats.written import (
    TEST_LABELS,
    TRAIN_LABELS,
    cifar_archive,
    cifar_content,
    idx_folder,
    image_folder,
    npz_file,
    smaller,
)

MEMBERS = get_args(get_args(Dataset.__value__)[0])
LAYERS = [
    {"type": "conv2d", "out_channels": 4, "kernel_size": 3, "padding": "same"},
    {"type": "relu"},
    {"type": "flatten"},
]


def parsed(content: dict[str, Any]) -> Any:
    return TypeAdapter(Dataset).validate_json(json.dumps(content))


def spec_of(dataset: dict[str, Any], **parts: Any) -> TrainingSpec:
    layers = [*LAYERS, {"type": "linear", "out_features": parsed(dataset).info.num_classes}]
    content = {
        "dataset": dataset,
        "model": {"type": "layers", "layers": layers},
        "optimizer": {"type": "adam", "lr": 0.003},
        "training": {"epochs": 2, "batch_size": 5},
        **parts,
    }
    return TrainingSpec.model_validate_json(json.dumps(content))


def write_idx(folder: Path) -> dict[str, Any]:
    return {"type": "idx", "path": str(idx_folder(folder / "idx"))}


def write_npz(folder: Path) -> dict[str, Any]:
    return {"type": "npz", "path": str(npz_file(folder / "set.npz"))}


def write_images(folder: Path) -> dict[str, Any]:
    return {"type": "image_folder", "path": str(image_folder(folder / "images"))}


def write_resized_grey_images(folder: Path) -> dict[str, Any]:
    path = image_folder(folder / "images") / "train"
    return {"type": "image_folder", "path": str(path), "image_size": [6, 5], "channels": 1, "test_fraction": 0.2}


LOCAL = pytest.mark.parametrize("write", [write_idx, write_npz, write_images, write_resized_grey_images])
Write = Callable[[Path], dict[str, Any]]


def assert_is_what_info_says(dataset: Any, data_dir: Path) -> None:
    data, info = dataset.load(data_dir), dataset.info
    assert data.train_images.shape == (info.num_train, *info.shape)
    assert data.test_images.shape == (info.num_test, *info.shape)
    assert data.train_images.dtype == np.uint8
    for labels in (data.train_labels, data.test_labels):
        assert labels.dtype == np.int64
        assert sorted(set(labels.tolist())) == list(range(info.num_classes))
    again = dataset.load(data_dir)  # now from the decoded files
    assert again.digest == data.digest
    assert np.array_equal(again.train_images, data.train_images)


@pytest.fixture
def fashion_dir(tmp_path: Path) -> Path:
    """A data directory with the files of Fashion-MNIST, which the system has or `make data` has fetched."""
    found = fetch_fashion_mnist(Path(os.environ.get("EPOCHD_DATA_DIR", "epochd-data")), print)
    install_files(found, tmp_path / "datasets" / "fashion_mnist")
    return tmp_path


@pytest.mark.parametrize("member", [FashionMNIST, Digits])
def test_a_dataset_is_what_its_info_says(member: type[FashionMNIST | Digits], fashion_dir: Path) -> None:
    assert_is_what_info_says(member(), fashion_dir)


@LOCAL
def test_a_local_dataset_is_what_its_info_says(write: Write, tmp_path: Path) -> None:
    assert_is_what_info_says(parsed(write(tmp_path)), tmp_path / "data")


@LOCAL
def test_training_on_local_files(write: Write, tmp_path: Path) -> None:
    spec = spec_of(write(tmp_path))
    assert TrainingSpec.model_validate_json(spec.model_dump_json()) == spec
    events = list(train(spec, spec.dataset.load(tmp_path / "data")))
    first, second = [event for event in events if isinstance(event, Metrics)]
    assert second.values["train_loss"] < first.values["train_loss"]
    assert isinstance(events[-1], Result)


def write_mnist(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """As published, but for the number of images."""
    idx_folder(data_dir / "datasets" / "mnist", np.arange(40) % 10, np.arange(20) % 10)
    monkeypatch.setattr(MNIST, "info", replace(MNIST.info, shape=(1, 8, 8), num_train=40, num_test=20))
    return {"type": "mnist"}


def write_cifar10(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    files = smaller(cifar.CIFAR10)
    monkeypatch.setattr(cifar, "CIFAR10", files)
    monkeypatch.setattr(CIFAR10, "info", replace(CIFAR10.info, num_train=15, num_test=2))
    cifar_archive(data_dir / "datasets" / "cifar10", files, cifar_content(files, CIFAR10.info.labels))
    return {"type": "cifar10"}


def write_cifar100(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    files = replace(cifar.CIFAR100, num_train=98, num_test=2)
    monkeypatch.setattr(cifar, "CIFAR100", files)
    monkeypatch.setattr(CIFAR100, "info", replace(CIFAR100.info, num_train=98, num_test=2))
    cifar_archive(data_dir / "datasets" / "cifar100", files, cifar_content(files, CIFAR100.info.labels))
    return {"type": "cifar100"}


@pytest.mark.parametrize("write", [write_mnist, write_cifar10, write_cifar100])
def test_training_on_published_files(
    write: Callable[[Path, pytest.MonkeyPatch], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write(tmp_path, monkeypatch)
    # With so few images and one of some classes, a validation split would take what there is.
    spec = spec_of(dataset, split={"val_fraction": 0})
    data = spec.dataset.load(tmp_path)
    assert data.train_images.shape == (spec.dataset.info.num_train, *spec.dataset.info.shape)
    events = list(train(spec, data))
    first, second = [event for event in events if isinstance(event, Metrics)]
    assert second.values["train_loss"] < first.values["train_loss"]


def test_files_of_another_dataset_are_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path / "datasets" / "mnist")
    with pytest.raises(
        DataCorrupt, match=r"mnist: expected .*\(60000, 1, 28, 28\).*, 10\), got .*\(30, 1, 8, 8\).*, 3\)"
    ):
        MNIST().load(tmp_path)
    assert not (tmp_path / "datasets" / "mnist" / "decoded").exists()


def test_fashion_mnist_is_the_real_one(fashion_dir: Path) -> None:
    data = FashionMNIST().load(fashion_dir)
    # The mean and deviation that are widely published for the 60,000 training images.
    assert data.train_images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert data.train_images.std() / 255 == pytest.approx(0.3530, abs=5e-5)
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
    assert FashionMNIST.info.labels[data.train_labels[0]] == "Ankle boot"


def test_digits_scales_0_to_16_to_bytes(tmp_path: Path) -> None:
    data = Digits().load(tmp_path)
    assert set(np.unique(data.train_images)) == {round(value * 255 / 16) for value in range(17)}


def test_those_who_must_not_give_paths_can_tell() -> None:
    assert {member.model_fields["type"].default for member in MEMBERS if not member.local_path} == {
        "fashion_mnist", "mnist", "cifar10", "cifar100", "digits", "registered"
    }  # fmt: skip
    assert {member.model_fields["type"].default for member in MEMBERS if member.local_path} == LOCAL_TYPES
    assert all(("path" in member.model_fields) == member.local_path for member in MEMBERS)


@pytest.mark.parametrize("kind", sorted(LOCAL_TYPES))
def test_a_path_that_leads_nowhere_is_an_error_of_the_spec(kind: str, tmp_path: Path) -> None:
    content = {
        "dataset": {"type": kind, "path": str(tmp_path / "nowhere")},
        "model": {"type": "layers", "layers": [*LAYERS, {"type": "linear", "out_features": 3}]},
        "optimizer": {"type": "sgd"},
    }
    with pytest.raises(ValidationError) as caught:
        TrainingSpec.model_validate_json(json.dumps(content))
    (error,) = caught.value.errors()
    assert (error["type"], error["ctx"]["pointer"]) == ("dataset_missing", "/dataset/path")
    assert str(tmp_path / "nowhere") in error["msg"]


def test_what_is_wrong_with_the_files_is_an_error_of_the_spec(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((10, 3, 8, 3), np.uint8), labels=np.arange(10))
    content = {
        "dataset": {"type": "npz", "path": str(tmp_path / "a.npz"), "test_fraction": 0.5},
        "model": {"type": "layers", "layers": [*LAYERS, {"type": "linear", "out_features": 10}]},
        "optimizer": {"type": "sgd"},
    }
    with pytest.raises(ValidationError) as caught:
        TrainingSpec.model_validate_json(json.dumps(content))
    (error,) = caught.value.errors()
    assert (error["type"], error["ctx"]["pointer"]) == ("data_corrupt", "/dataset/path")
    assert error["msg"].endswith("both axes could be the channels (say which in dataset.layout)")


def test_changed_files_give_other_data_and_equal_files_the_same_digest(tmp_path: Path) -> None:
    dataset = parsed(write_images(tmp_path))
    before = dataset.load(tmp_path / "data")
    image = tmp_path / "images" / "train" / "ant" / "000.png"
    original, times = image.read_bytes(), image.stat()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(image)
    changed = dataset.load(tmp_path / "data")
    assert changed.train_images[0, :, 0, 0].tolist() == [1, 2, 3]
    assert changed.digest != before.digest
    image.write_bytes(original)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    assert dataset.load(tmp_path / "data").digest == before.digest


def test_info_follows_the_files(tmp_path: Path) -> None:
    dataset = parsed(write_images(tmp_path))
    assert dataset.info.num_train == len(TRAIN_LABELS)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "train" / "ant" / "new.png")
    folder = tmp_path / "images" / "train" / "ant"
    os.utime(folder, ns=(0, folder.stat().st_mtime_ns + 10**9))  # a coarse clock may not have gone on
    assert dataset.info.num_train == len(TRAIN_LABELS) + 1
    assert dataset.info.num_test == len(TEST_LABELS)


def test_the_statistics_of_a_run_come_from_the_chosen_training_images_alone(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        train_images=np.repeat(np.arange(0, 200, 10, dtype=np.uint8), 16).reshape(20, 4, 4),
        train_labels=np.arange(20) % 2,
        test_images=np.full((2, 4, 4), 255, np.uint8),
        test_labels=np.arange(2),
    )
    dataset = {"type": "npz", "path": str(tmp_path / "a.npz")}
    spec = spec_of(dataset, split={"val_fraction": 0.2, "num_train": 2}, training={"epochs": 1, "batch_size": 2})
    assert (spec.num_train, spec.num_val) == (2, 4)
    artifacts = tmp_path / "artifacts"
    events = list(train(spec, spec.dataset.load(tmp_path), artifacts=artifacts))
    assert isinstance(events[-1], Result)
    (mean,) = load_file(artifacts / "model.safetensors")["normalization.mean"]
    # One image of each class, whose constant values are 20 · i and 20 · j + 10.
    assert mean in {(20 * i + 20 * j + 10) / 2 for i in range(10) for j in range(10)}
