from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from cnn.data import DatasetMissing, read_fashion_mnist, read_idx
from cnn.datasets import Dataset, Digits, FashionMNIST

MEMBERS = get_args(get_args(Dataset.__value__)[0])


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.info.name)
def test_a_dataset_is_what_its_info_says(member: type[FashionMNIST | Digits], tmp_path: Path) -> None:
    data, info = member().load(tmp_path), member.info
    assert data.train_images.shape == (info.num_train, *info.shape)
    assert data.test_images.shape == (info.num_test, *info.shape)
    assert data.train_images.dtype == np.uint8
    assert data.train_images.max() == 255
    for labels in (data.train_labels, data.test_labels):
        assert labels.dtype == np.int64
        assert sorted(set(labels.tolist())) == list(range(info.num_classes))
    again = member().load(tmp_path)  # now from the decoded files
    assert again.digest == data.digest
    assert np.array_equal(again.train_images, data.train_images)


def test_fashion_mnist_is_the_real_one(tmp_path: Path) -> None:
    data = FashionMNIST().load(tmp_path)
    # The mean and deviation that are widely published for the 60,000 training images.
    assert data.train_images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert data.train_images.std() / 255 == pytest.approx(0.3530, abs=5e-5)
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
    assert FashionMNIST.info.labels[data.train_labels[0]] == "Ankle boot"


def test_digits_scales_0_to_16_to_bytes(tmp_path: Path) -> None:
    data = Digits().load(tmp_path)
    assert set(np.unique(data.train_images)) == {round(value * 255 / 16) for value in range(17)}


def test_missing_files_name_the_places_and_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnn.data.SYSTEM_FOLDER", tmp_path / "nowhere")
    with pytest.raises(DatasetMissing) as caught:
        read_fashion_mnist(tmp_path / "datasets" / "fashion_mnist")
    assert str(tmp_path / "nowhere" / "fashion-mnist") in str(caught.value)
    assert f"python -m cnn.fetch fashion_mnist --data-dir {tmp_path}" in str(caught.value)


def idx(path: Path, header: bytes, values: bytes) -> Path:
    path.write_bytes(gzip.compress(header + values) if path.suffix == ".gz" else header + values)
    return path


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
def test_read_idx(tmp_path: Path, name: str) -> None:
    path = idx(tmp_path / name, struct.pack(">HBBII", 0, 8, 2, 2, 3), bytes(range(6)))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        (struct.pack(">HBBI", 0, 13, 1, 1), b"\0\0\0\0", "expected an IDX file of unsigned bytes"),
        (b"\x89PNG", b"", "expected an IDX file"),
        (struct.pack(">HBBI", 0, 8, 1, 5), b"\0" * 4, r"announces \(5,\), but 4 bytes follow"),
        (b"\0", b"", "too short"),
        (struct.pack(">HBBI", 0, 8, 3, 5), b"", "too short"),
    ],
)
def test_read_idx_refuses_other_files(tmp_path: Path, header: bytes, values: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_idx(idx(tmp_path / "a.idx", header, values))


def test_two_processes_may_decode_at_once(tmp_path: Path) -> None:
    first, second = Digits().load(tmp_path), None
    folder = tmp_path / "datasets" / "digits"
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if Digits().load(tmp_path / "shared").digest == first.digest else 1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    second = Digits().load(tmp_path / "shared")
    assert (
        hashlib.sha256(second.train_images.tobytes()).digest() == hashlib.sha256(first.train_images.tobytes()).digest()
    )
    assert sorted(path.name for path in folder.iterdir()) == ["decoded"]
