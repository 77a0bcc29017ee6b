"""The arrays of a dataset, and the readers of their file formats.

A dataset is decoded once to `.npy` files, which every trainer of a host maps into memory and shares.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

SYSTEM_FOLDER = Path("/usr/share/datasets")
FASHION_MNIST_FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}


@dataclass(frozen=True, slots=True)
class Data:
    """Images (N, C, H, W) in 0..255 and class numbers (N,); `train` is split into train and val later.

    `digest` is the SHA-256 of shapes and bytes of the four arrays.
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    digest: str


class DatasetMissing(Exception):
    """The files of a dataset are nowhere; the message says where they were sought and how to get them."""


def read_fashion_mnist(folder: Path) -> Data:
    places = [folder, SYSTEM_FOLDER / "fashion-mnist"]
    for place in places:
        files = {part: place / name for part, name in FASHION_MNIST_FILES.items()}
        if all(path.is_file() for path in files.values()):
            return _data(*(read_idx(path) for path in files.values()))
    raise DatasetMissing(
        f"Fashion-MNIST is neither in {places[0]} nor in {places[1]}. Either run `python -m cnn.fetch fashion_mnist "
        f"--data-dir {folder.parent.parent}`, or install Debian's package dataset-fashion-mnist, or put the four "
        f"original files ({', '.join(FASHION_MNIST_FILES.values())}) into {places[0]}."
    )


def read_digits() -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # the source counts 0 to 16
    test = np.arange(len(images)) % 5 == 4
    return _data(images[~test], digits.target[~test], images[test], digits.target[test])


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes from an IDX file, gzipped or not. Raises ValueError when it is not one."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        content = file.read()
    try:
        zeros, element_type, num_dimensions = struct.unpack_from(">HBB", content)
        if zeros != 0 or element_type != 8:
            raise ValueError(
                f"{path}: expected an IDX file of unsigned bytes, which begins 00 00 08, got {content[:4]!r}"
            )
        shape = struct.unpack_from(f">{num_dimensions}I", content, 4)
    except struct.error:
        raise ValueError(f"{path}: too short for the header of an IDX file: {len(content)} bytes") from None
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * num_dimensions)
    if values.size != np.prod(shape):
        raise ValueError(f"{path}: its header announces {shape}, but {values.size} bytes follow")
    return values.reshape(shape)


def _data(
    train_images: Images, train_labels: NDArray[np.integer], test_images: Images, test_labels: NDArray[np.integer]
) -> Data:
    arrays = (
        np.ascontiguousarray(train_images.reshape(-1, 1, *train_images.shape[1:])),
        train_labels.astype(np.int64),
        np.ascontiguousarray(test_images.reshape(-1, 1, *test_images.shape[1:])),
        test_labels.astype(np.int64),
    )
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return Data(*arrays, digest=f"sha256:{digest.hexdigest()}")


def decoded_once(folder: Path, decode: Callable[[], Data]) -> Data:
    """The dataset from `folder`, which is written from `decode()` when it is not there yet."""
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    if not folder.is_dir():
        data = decode()
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".decoded-"))
        for part in parts:
            np.save(temporary / f"{part}.npy", getattr(data, part))
        (temporary / "digest.json").write_text(json.dumps({"digest": data.digest}))
        try:
            os.rename(temporary, folder)
        except OSError:  # another process was faster: its files have the same content
            shutil.rmtree(temporary)
            if not folder.is_dir():
                raise
    # Copy-on-write maps share their pages between processes, and torch takes them without a warning.
    train_images, train_labels, test_images, test_labels = (
        np.load(folder / f"{part}.npy", mmap_mode="c") for part in parts
    )
    digest = json.loads((folder / "digest.json").read_text())["digest"]
    return Data(train_images, train_labels, test_images, test_labels, digest)
