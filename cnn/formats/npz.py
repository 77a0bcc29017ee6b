"""NPZ files: zip archives of NumPy arrays. What needs pickle to be read is refused."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cnn.data import Data, Images, Labels, build_data, checked_labels, hold_out_test, number_names, split_counts
from cnn.datasets import DatasetInfo
from cnn.errors import DataCorrupt
from cnn.local_datasets import Layout

MAX_HEADER_BYTES = 2**16 + 12
"""The largest header of version 1.0; NumPy parses none of more than 10,000 characters."""


def read_npz(path: Path, layout: Layout | None, test_fraction: float | None) -> Data:
    with _open(path) as arrays:
        if test_fraction is not None:
            images, labels = _images(path, arrays, "images", layout), _labels(path, arrays, "labels")
            _require_pairs(path, images, labels)
            return hold_out_test(str(path), images, labels, test_fraction)
        return build_data(
            str(path),
            _images(path, arrays, "train_images", layout),
            _labels(path, arrays, "train_labels"),
            _images(path, arrays, "test_images", layout),
            _labels(path, arrays, "test_labels"),
        )


def npz_info(path: Path, layout: Layout | None, test_fraction: float | None) -> DatasetInfo:
    """From the labels and the headers of the images; the images themselves are not read."""
    with _open(path) as arrays:
        parts = ("",) if test_fraction is not None else ("train_", "test_")
        shapes = [_image_shape(path, arrays, f"{part}images", layout) for part in parts]
        labels = [_labels(path, arrays, f"{part}labels") for part in parts]
        if test_fraction is None:
            num_train, num_test = len(labels[0]), len(labels[1])
        else:
            num_train, num_test = split_counts(str(path), len(labels[0]), test_fraction)
    return DatasetInfo("npz", shapes[0], number_names(*labels), num_train, num_test)


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as arrays:
            yield arrays
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, zlib.error) as error:
        raise DataCorrupt(f"{path}: it is no NPZ file that can be read: {error}") from error


def _header(path: Path, arrays: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of an array."""
    if f"{name}.npy" not in arrays.namelist():
        found = ", ".join(entry.removesuffix(".npy") for entry in arrays.namelist())
        raise DataCorrupt(
            f"{path}: there is no array {name}; found: {found or 'none'}",
            "without test_fraction the arrays are train_images, train_labels, test_images, test_labels, "
            "with it they are images, labels",
        )
    with arrays.open(f"{name}.npy") as file:
        return read_header(file)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of the array of an NPY file, of which at most `MAX_HEADER_BYTES` are read.

    Raises:
        ValueError: it does not begin as such a file.
    """
    head = BytesIO(file.read(MAX_HEADER_BYTES))
    version = npy.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"expected version 1.0 or 2.0 of the NPY format, got {version}")
    try:
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(head)
    # What Python's parser raises on nonsense, beside the ValueError of NumPy.
    except (SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(f"expected a header of the NPY format, got one that cannot be parsed: {error}") from error
    return shape, dtype


def _read(arrays: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    with arrays.open(f"{name}.npy") as file:
        array: NDArray[np.generic] = npy.read_array(file, allow_pickle=False)
    return array


def _labels(path: Path, arrays: zipfile.ZipFile, name: str) -> Labels:
    shape, dtype = _header(path, arrays, name)
    if not np.issubdtype(dtype, np.integer) or len(shape) != 1:
        raise DataCorrupt(f"{path}: {name}: expected integers of shape (N,), got {dtype} of shape {shape}")
    return checked_labels(f"{path}: {name}", _read(arrays, name))


def _layout(path: Path, arrays: zipfile.ZipFile, name: str, layout: Layout | None) -> tuple[Layout, tuple[int, ...]]:
    """How the axes of an array of images are to be read, and its shape."""
    shape, dtype = _header(path, arrays, name)
    if dtype != np.uint8:
        raise DataCorrupt(
            f"{path}: {name}: expected uint8 values from 0 to 255, got {dtype}",
            "floats from 0 to 1 become bytes by `(255 * images).round().astype('uint8')`",
        )
    found = layout or _told_apart(path, name, shape)
    if len(shape) != len(found) or 0 in shape:
        raise DataCorrupt(f"{path}: {name}: expected images {found}, got an array of shape {shape}")
    return found, shape


def _told_apart(path: Path, name: str, shape: tuple[int, ...]) -> Layout:
    if len(shape) == 3:
        return "NHW"
    first, last = len(shape) == 4 and shape[1] in (1, 3), len(shape) == 4 and shape[3] in (1, 3)
    if first == last:
        reason = "both axes could be the channels" if first else "no axis is 1 or 3 channels"
        raise DataCorrupt(
            f"{path}: {name}: expected images NHW, NHWC or NCHW, got an array of shape {shape}, where {reason}",
            "say which in dataset.layout",
        )
    return "NCHW" if first else "NHWC"


def _image_shape(path: Path, arrays: zipfile.ZipFile, name: str, layout: Layout | None) -> tuple[int, int, int]:
    found, shape = _layout(path, arrays, name, layout)
    size = dict(zip(found, shape, strict=True))
    return size.get("C", 1), size["H"], size["W"]


def _images(path: Path, arrays: zipfile.ZipFile, name: str, layout: Layout | None) -> Images:
    found, _ = _layout(path, arrays, name, layout)
    images = _read(arrays, name).view(np.uint8)
    if found == "NHW":
        return images[:, None]
    return np.moveaxis(images, 3, 1) if found == "NHWC" else images


def _require_pairs(path: Path, images: Images, labels: Labels) -> None:
    if len(images) != len(labels):
        raise DataCorrupt(f"{path}: expected a label for each image, got {len(images)} images and {len(labels)} labels")
