from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from cnn.errors import DataCorrupt, DatasetMissing
from cnn.formats.idx import find_idx, read_idx, read_published
from tests.cnn.formats.written import TRAIN_LABELS, idx_bytes, idx_folder, pictures


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
def test_read_idx(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6)))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack(">HBBI", 0, 13, 1, 1) + b"\0\0\0\0", "expected an IDX file of unsigned bytes"),
        (b"\x89PNG", "expected an IDX file"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"\0" * 4, r"announces \(5,\), which are 5 bytes, but only 4 follow"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"\0" * 6, r"announces \(5,\), which are 5 bytes, but more follow"),
        (b"\0", "too short"),
        (struct.pack(">HBBI", 0, 8, 3, 5), "too short"),
    ],
)
def test_read_idx_refuses_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataCorrupt, match=f"a.idx: .*{message}"):
        read_idx(written(tmp_path / "a.idx", content))


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(idx_bytes(pictures(TRAIN_LABELS)))[:-500], gzip.compress(b"")[:9] + b"\xff" * 9],
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.idx.gz"
    path.write_bytes(content)
    with pytest.raises(DataCorrupt, match=r"a\.idx\.gz: "):
        read_idx(path)


def test_a_folder_of_four_files_gives_images_labels_and_info(tmp_path: Path) -> None:
    files = find_idx(idx_folder(tmp_path / "set"))
    data, info = files.read(), files.info("mine")
    assert data.train_images.shape == (30, 1, 8, 8)
    assert np.array_equal(data.train_images[:, 0], pictures(TRAIN_LABELS))
    assert data.train_labels.tolist() == TRAIN_LABELS.tolist()
    assert (info.shape, info.labels, info.num_train, info.num_test) == ((1, 8, 8), ("0", "1", "2"), 30, 9)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = idx_folder(tmp_path / "set")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetMissing, match=r"missing: t10k-labels-idx1-ubyte$"):
        find_idx(folder)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(29), "got 30 images and 29 labels"),
        (
            "train-labels-idx1-ubyte",
            np.zeros((30, 1)),
            r"expected integers of shape \(N,\), got uint8 of shape \(30, 1\)",
        ),
        ("t10k-labels-idx1-ubyte", np.zeros(0), "there are no labels"),
        ("t10k-images-idx3-ubyte", np.zeros((9, 8, 9)), r"\(1, 8, 8\) and \(1, 8, 9\)"),
        ("train-images-idx3-ubyte", np.zeros((30, 64)), r"expected images \(N, height, width\), got .* \(30, 64\)"),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    tmp_path: Path, name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], message: str
) -> None:
    folder = idx_folder(tmp_path / "set")
    (folder / f"{name}.gz").unlink()
    (folder / name).write_bytes(idx_bytes(values.astype(np.uint8)))
    with pytest.raises(DataCorrupt, match=message):
        find_idx(folder).read()


def test_published_files_that_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places and the cure are named; torchvision runs in an interpreter whose proxy refuses connections."""
    monkeypatch.setattr("cnn.formats.idx.SYSTEM_FOLDER", tmp_path / "nowhere")
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    folder = tmp_path / "datasets" / "fashion_mnist"
    with pytest.raises(DatasetMissing) as caught:
        read_published(folder, "fashion_mnist", "Fashion-MNIST")
    message = caught.value.message
    assert message.startswith(f"Fashion-MNIST is neither in {folder} nor in {tmp_path / 'nowhere' / 'fashion-mnist'}")
    assert f"python -m cnn.fetch fashion_mnist --data-dir {tmp_path}" in message
    assert caught.value.code == "dataset_missing"
