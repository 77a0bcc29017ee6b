from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.errors import DataCorrupt
from cnn.formats.npz import npz_info, read_npz
from cnn.local_datasets import Layout
from tests.cnn.formats.written import TEST_LABELS, TRAIN_LABELS, npz_file, pictures

Array = np.ndarray[Any, Any]

FOUR = {
    "train_images": pictures(TRAIN_LABELS),
    "train_labels": TRAIN_LABELS,
    "test_images": pictures(TEST_LABELS),
    "test_labels": TEST_LABELS,
}


def test_four_arrays(tmp_path: Path) -> None:
    path = npz_file(tmp_path / "a.npz")
    data, info = read_npz(path, None, None), npz_info(path, None, None)
    assert np.array_equal(data.train_images[:, 0], pictures(TRAIN_LABELS))
    assert data.test_labels.tolist() == TEST_LABELS.tolist()
    assert (info.shape, info.labels, info.num_train, info.num_test) == ((1, 8, 8), ("0", "1", "2"), 30, 9)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((30, 8, 6), None, (1, 8, 6)),
        ((30, 8, 6, 3), None, (3, 8, 6)),
        ((30, 8, 6, 1), None, (1, 8, 6)),
        ((30, 3, 8, 6), None, (3, 8, 6)),
        ((30, 3, 8, 3), "NHWC", (3, 3, 8)),
        ((30, 3, 8, 3), "NCHW", (3, 8, 3)),
        ((30, 8, 6, 5), "NHWC", (5, 8, 6)),
    ],
)
def test_layouts(tmp_path: Path, shape: tuple[int, ...], layout: Layout | None, expected: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=images, labels=TRAIN_LABELS.astype(np.int16))
    data = read_npz(path, layout, 0.2)
    assert npz_info(path, layout, 0.2).shape == expected
    assert data.train_images.shape == (24, *expected)
    if expected == (3, 8, 6):
        both = np.concatenate([data.train_images, data.test_images])
        first = images[0] if shape[1] == 3 else images[0].transpose(2, 0, 1)
        assert any(np.array_equal(first, image) for image in both)


def test_the_test_split_has_its_share_of_every_class_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    np.savez(path, images=pictures(labels), labels=labels)
    data, info = read_npz(path, None, 0.1), npz_info(path, None, 0.1)
    assert np.bincount(data.test_labels).tolist() == [5, 3, 2]
    assert (info.num_train, info.num_test) == (90, 10) == (len(data.train_images), len(data.test_images))
    assert data.digest == read_npz(path, None, 0.1).digest


@pytest.mark.parametrize(
    ("change", "layout", "message"),
    [
        (
            {"train_images": np.zeros((30, 8, 8))},
            None,
            "train_images: expected uint8 values from 0 to 255, got float64",
        ),
        ({"train_images": np.zeros((30, 8, 8, 4), np.uint8)}, None, "no axis is 1 or 3 channels"),
        ({"train_images": np.zeros((30, 3, 8, 3), np.uint8)}, None, "both axes could be the channels"),
        ({"train_images": np.zeros((30, 64), np.uint8)}, None, r"got an array of shape \(30, 64\)"),
        (
            {"train_images": np.zeros((30, 0, 8), np.uint8)},
            None,
            r"expected images NHW, got an array of shape \(30, 0, 8\)",
        ),
        ({"train_images": np.zeros((30, 8, 8), np.uint8)}, "NCHW", r"expected images NCHW, got .* \(30, 8, 8\)"),
        ({"test_images": np.zeros((9, 8, 9), np.uint8)}, None, r"\(1, 8, 8\) and \(1, 8, 9\)"),
        ({"train_labels": TRAIN_LABELS[:29]}, None, "got 30 images and 29 labels"),
        ({"train_labels": TRAIN_LABELS - 1}, None, "expected class numbers from 0 to at most 99999, got -1 to 1"),
        ({"train_labels": TRAIN_LABELS * 10**9}, None, "got 0 to 2000000000"),
        ({"train_labels": TRAIN_LABELS / 1}, None, r"train_labels: expected integers of shape \(N,\), got float64"),
        ({"train_labels": TRAIN_LABELS.astype(object)}, None, "train_labels: expected integers .* got object"),
        ({"train_images": np.full((30, 8, 8), None)}, None, "expected uint8 values from 0 to 255, got object"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, change: dict[str, Array], layout: Layout | None, message: str) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.savez(file, **(FOUR | change))  # type: ignore[arg-type]
    with pytest.raises(DataCorrupt, match=message):
        read_npz(path, layout, None)


def test_missing_arrays_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = npz_file(tmp_path / "a.npz")
    with pytest.raises(DataCorrupt, match="no array images; found: train_images, train_labels, "):
        npz_info(path, None, 0.1)


@pytest.mark.parametrize("content", [b"no zip", npz_file.__name__.encode() * 100, b"PK\x03\x04" * 10])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataCorrupt, match=r"a\.npz: it is no NPZ file that can be read"):
        read_npz(path, None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, this is text", "magic"),
        (b"\x93NUMPY\3\0\0\0", r"expected version 1\.0 or 2\.0 of the NPY format, got \(3, 0\)"),
        (b"\x93NUMPY\1\0\4\0((((", "got one that cannot be parsed"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff{}", "EOF: reading array header"),
    ],
)
def test_a_member_that_is_no_array_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", content)
    with pytest.raises(DataCorrupt, match=rf"a\.npz: it is no NPZ file that can be read: .*{message}"):
        read_npz(path, None, None)


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.savez(content, **FOUR)  # type: ignore[arg-type]
    damaged = bytearray(content.getvalue())
    damaged[1000] ^= 1
    path = tmp_path / "a.npz"
    path.write_bytes(damaged)
    with pytest.raises(DataCorrupt, match="Bad CRC-32"):
        read_npz(path, None, None)


def test_a_test_fraction_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=pictures(TRAIN_LABELS), labels=TRAIN_LABELS)
    with pytest.raises(DataCorrupt, match="leaves 30 images for training and 0 for testing of 30"):
        npz_info(path, None, 0.01)
