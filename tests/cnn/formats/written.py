"""Small datasets in each file format, written here byte by byte or by the library that users would use."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn.formats.cifar import CifarFiles

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def pictures(labels: NDArray[np.int64], shape: tuple[int, ...] = (8, 8)) -> NDArray[np.uint8]:
    """Noise, brighter for higher classes, so that there is something to learn."""
    noise = np.random.default_rng(len(labels)).integers(0, 60, (len(labels), *shape))
    return (noise + 90 * labels.reshape(-1, *[1] * len(shape))).astype(np.uint8)


TRAIN_LABELS = np.arange(30) % 3
TEST_LABELS = np.arange(9) % 3


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def idx_folder(
    folder: Path, train_labels: NDArray[np.int64] = TRAIN_LABELS, test_labels: NDArray[np.int64] = TEST_LABELS
) -> Path:
    """Gzipped, as published."""
    folder.mkdir(parents=True)
    parts: list[NDArray[np.generic]] = [pictures(train_labels), train_labels, pictures(test_labels), test_labels]
    for name, values in zip(IDX_NAMES, parts, strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(values.astype(np.uint8))))
    return folder


def npz_file(path: Path) -> Path:
    np.savez(
        path,
        train_images=pictures(TRAIN_LABELS),
        train_labels=TRAIN_LABELS,
        test_images=pictures(TEST_LABELS),
        test_labels=TEST_LABELS,
    )
    return path


CLASSES = ("ant", "bee", "cat")


def image_folder(folder: Path, suffix: str = "png") -> Path:
    """RGB pictures of 8 × 8 below `train` and `test`."""
    for split, labels in (("train", TRAIN_LABELS), ("test", TEST_LABELS)):
        for index, (label, pixels) in enumerate(zip(labels, pictures(labels, (8, 8, 3)), strict=True)):
            file = folder / split / CLASSES[label] / f"{index:03}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder


def smaller(files: CifarFiles) -> CifarFiles:
    """The same files with 3 records for training in each, and 2 for testing."""
    return replace(files, num_train=3, num_test=2)


def cifar_content(files: CifarFiles, classes: tuple[str, ...]) -> dict[str, bytes]:
    """Records (coarse label 7,) label, 1024 red, 1024 green and 1024 blue bytes; the class and the red count up."""
    content = {files.names: "\n".join((*classes, "")).encode()}
    number = 0
    for name, count in [(name, files.num_train) for name in files.train] + [(files.test, files.num_test)]:
        records = b""
        for _ in range(count):
            label = bytes([7] * (files.label_bytes - 1) + [number % len(classes)])
            records += label + bytes([number]) * 1024 + bytes([100]) * 1024 + bytes(range(200, 232)) * 32
            number += 1
        content[name] = records
    return content


def cifar_folder(place: Path, files: CifarFiles, content: dict[str, bytes]) -> None:
    (place / files.folder).mkdir(parents=True)
    for name, values in content.items():
        (place / files.folder / name).write_bytes(values)


def cifar_archive(place: Path, files: CifarFiles, content: dict[str, bytes], inside: str | None = None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    path = place / files.archive
    with tarfile.open(path, "w:gz") as archive:
        for name, values in content.items():
            member = tarfile.TarInfo(f"{inside or files.folder}/{name}")
            member.size = len(values)
            archive.addfile(member, io.BytesIO(values))
    return path
