"""The arrays of a dataset.

A dataset is decoded once to `.npy` files, which every trainer of a host maps into memory and shares.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn.errors import DataCorrupt
from cnn.splits import stratified_split

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

PARTS = ("train_images", "train_labels", "test_images", "test_labels")
MAX_CLASSES = 100_000
TEST_SEED = 0
"""Of the division that `test_fraction` asks for: a constant, so that a folder has one test split whoever trains."""


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


def build_data(
    where: str, train_images: Images, train_labels: Labels, test_images: Images, test_labels: Labels
) -> Data:
    """Data of images (N, C, H, W) and labels (N,). Raises DataCorrupt, naming `where`, when they do not go together."""
    for split, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        if len(images) != len(labels) or not len(images):
            raise DataCorrupt(
                f"{where}: expected a label for each of one or more {split} images, "
                f"got {len(images)} images and {len(labels)} labels"
            )
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataCorrupt(
            f"{where}: train and test images must have one shape (channels, height, width), "
            f"they have {train_images.shape[1:]} and {test_images.shape[1:]}"
        )
    train_images, test_images = np.ascontiguousarray(train_images), np.ascontiguousarray(test_images)
    digest = hashlib.sha256()
    for array in (train_images, train_labels, test_images, test_labels):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return Data(train_images, train_labels, test_images, test_labels, f"sha256:{digest.hexdigest()}")


def split_counts(where: str, num_images: int, fraction: float) -> tuple[int, int]:
    """Images of the training split and of the test split that `hold_out_test` makes."""
    num_test = round(fraction * num_images)
    if num_test in (0, num_images):
        raise DataCorrupt(
            f"{where}: a test_fraction of {fraction} leaves {num_images - num_test} images for training and {num_test} "
            f"for testing of {num_images}"
        )
    return num_images - num_test, num_test


def hold_out_test(where: str, images: Images, labels: Labels, fraction: float) -> Data:
    """Data whose test split is round(fraction · N) of the samples, with the same share of every class."""
    train, test = stratified_split(labels, fraction, TEST_SEED, "test")
    return build_data(where, images[train], labels[train], images[test], labels[test])


def checked_labels(where: str, labels: NDArray[np.generic]) -> Labels:
    """Class numbers (N,) from 0 as int64. Raises DataCorrupt, naming `where`, when they are anything else."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataCorrupt(f"{where}: expected integers of shape (N,), got {labels.dtype} of shape {labels.shape}")
    if not labels.size:
        raise DataCorrupt(f"{where}: there are no labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= MAX_CLASSES:
        raise DataCorrupt(f"{where}: expected class numbers from 0 to at most {MAX_CLASSES - 1}, got {low} to {high}")
    return labels.astype(np.int64)


def number_names(*labels: Labels) -> tuple[str, ...]:
    """The classes that occur and those below them, named by their numbers."""
    return tuple(str(number) for number in range(1 + max(int(part.max()) for part in labels)))


def decoded_once(folder: Path, decode: Callable[[], Data]) -> Data:
    """The dataset from `folder`, which is written from `decode()` when it is not there yet."""
    if not folder.is_dir():
        data = decode()
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".decoded-"))
        try:
            write_decoded(temporary, data)
            os.rename(temporary, folder)
        except OSError:  # the disk is full, or another process was faster: its files have the same content
            shutil.rmtree(temporary)
            if not folder.is_dir():
                raise
    return read_decoded(folder)


def write_decoded(folder: Path, data: Data) -> None:
    for part in PARTS:
        np.save(folder / f"{part}.npy", getattr(data, part))
    (folder / "digest.json").write_text(json.dumps({"digest": data.digest}))


def read_decoded(folder: Path) -> Data:
    """Copy-on-write maps of the arrays share their pages between processes, and torch takes them without a warning."""
    train_images, train_labels, test_images, test_labels = (
        np.load(folder / f"{part}.npy", mmap_mode="c") for part in PARTS
    )
    digest = json.loads((folder / "digest.json").read_text())["digest"]
    return Data(train_images, train_labels, test_images, test_labels, digest)
