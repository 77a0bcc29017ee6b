from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from cnn.data import Data, build_data, checked_labels, decoded_once, hold_out_test
from cnn.datasets import Digits
from cnn.errors import DataCorrupt

IMAGES = np.arange(48, dtype=np.uint8).reshape(4, 3, 2, 2)
LABELS = np.array([0, 1, 0, 1])


def tiny() -> Data:
    return build_data("here", IMAGES[:3], LABELS[:3], IMAGES[3:], LABELS[3:])


def test_the_digest_is_that_of_types_shapes_and_bytes() -> None:
    expected = hashlib.sha256()
    for header, values in [
        ("uint8(3, 3, 2, 2)", bytes(range(36))),
        ("int64(3,)", bytes(8) + b"\1" + bytes(15)),
        ("uint8(1, 3, 2, 2)", bytes(range(36, 48))),
        ("int64(1,)", b"\1" + bytes(7)),
    ]:
        expected.update(header.encode() + values)
    assert tiny().digest == f"sha256:{expected.hexdigest()}"


def test_the_digest_does_not_depend_on_how_an_array_lies_in_memory() -> None:
    transposed = np.moveaxis(np.ascontiguousarray(np.moveaxis(IMAGES, 1, 3)), 3, 1)
    assert not transposed.flags.c_contiguous
    assert build_data("here", transposed[:3], LABELS[:3], transposed[3:], LABELS[3:]).digest == tiny().digest


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0]), r"here: expected integers of shape \(N,\), got float64 of shape \(1,\)"),
        (np.array([[0]]), r"got int64 of shape \(1, 1\)"),
        (np.array([], dtype=np.int64), "there are no labels"),
        (np.array([3, -1]), "expected class numbers from 0 to at most 99999, got -1 to 3"),
        (np.array([0, 2**63], dtype=np.uint64), "got 0 to 9223372036854775808"),
    ],
)
def test_labels_are_checked(labels: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str) -> None:
    with pytest.raises(DataCorrupt, match=message):
        checked_labels("here", labels)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataCorrupt, match="here: expected a label for each of one or more test images, got 0 images"):
        build_data("here", IMAGES, LABELS, IMAGES[:0], LABELS[:0])


def test_what_is_held_out_is_not_in_the_training_split() -> None:
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    labels = np.repeat([0, 1], [70, 30])
    data = hold_out_test("here", images, labels, 0.1)
    assert np.bincount(data.test_labels).tolist() == [7, 3]
    assert sorted([*data.train_images.flat, *data.test_images.flat]) == list(range(100))
    assert (labels[data.test_images.flatten()] == data.test_labels).all()


def test_the_second_time_nothing_is_decoded(tmp_path: Path) -> None:
    first = decoded_once(tmp_path / "a", tiny)
    second = decoded_once(tmp_path / "a", lambda: pytest.fail("decoded again"))
    assert second.digest == first.digest == tiny().digest
    assert isinstance(second.train_images, np.memmap)
    assert np.array_equal(second.train_images, IMAGES[:3])


def test_two_processes_may_decode_at_once(tmp_path: Path) -> None:
    first = Digits().load(tmp_path / "mine")
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if Digits().load(tmp_path / "shared").digest == first.digest else 1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    second = Digits().load(tmp_path / "shared")
    assert np.array_equal(second.train_images, first.train_images)
    assert [path.name for path in (tmp_path / "shared" / "datasets" / "digits").iterdir()] == ["decoded"]
