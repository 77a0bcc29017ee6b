"""IDX files, the format of MNIST: a header of big-endian numbers, then the values (LeCun, Cortes & Burges, 1998)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cnn.data import Data, Images, Labels, build_data, checked_labels, number_names
from cnn.datasets import DatasetInfo
from cnn.errors import DataCorrupt, DatasetMissing
from cnn.fetch import FILES, FetchError, from_torchvision

SYSTEM_FOLDER = Path("/usr/share/datasets")
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True, slots=True)
class IdxFiles:
    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path

    def read(self) -> Data:
        where = str(self.train_images.parent)
        train_images, train_labels = _read_images(self.train_images), _read_labels(self.train_labels)
        return build_data(
            where, train_images, train_labels, _read_images(self.test_images), _read_labels(self.test_labels)
        )

    def info(self, name: str) -> DatasetInfo:
        """From the labels and the header of the training images; the images themselves are not read."""
        train_labels, test_labels = _read_labels(self.train_labels), _read_labels(self.test_labels)
        _, height, width = _image_shape(self.train_images, idx_shape(self.train_images))
        return DatasetInfo(
            name=name,
            shape=(1, height, width),
            labels=number_names(train_labels, test_labels),
            num_train=len(train_labels),
            num_test=len(test_labels),
        )


def find_idx(folder: Path) -> IdxFiles:
    """The four files in `folder`, each gzipped or not. Raises DatasetMissing."""
    found = [next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None) for name in NAMES]
    train_images, train_labels, test_images, test_labels = found
    if not (train_images and train_labels and test_images and test_labels):
        missing = [name for name, path in zip(NAMES, found, strict=True) if path is None]
        raise DatasetMissing(
            f"{folder.absolute()}: expected the files {', '.join(NAMES)}, each as it is or with .gz; "
            f"missing: {', '.join(missing)}"
        )
    return IdxFiles(train_images, train_labels, test_images, test_labels)


def read_published(folder: Path, name: str, title: str) -> Data:
    """`fashion_mnist` or `mnist` from `folder`, from the system's folder, or else from torchvision's download."""
    system = SYSTEM_FOLDER / name.replace("_", "-")
    if not any(_complete(place, name) for place in (folder, system)):
        try:
            from_torchvision(folder, name)
        except FetchError as error:
            raise DatasetMissing(
                f"{title} is neither in {folder} nor in {system}, and torchvision's download failed ({error}). Run "
                f"`python -m cnn.fetch {name} --data-dir {folder.parent.parent}` where there is internet, or put "
                f"the four original files ({', '.join(FILES[name])}) into {folder}"
            ) from error
    return find_idx(folder if _complete(folder, name) else system).read()


def _complete(place: Path, name: str) -> bool:
    return all((place / file).is_file() for file in FILES[name])


def idx_shape(path: Path) -> tuple[int, ...]:
    """What the header of an IDX file announces. Raises DataCorrupt."""
    try:
        with _open(path) as file:
            return _read_header(path, file)
    except (EOFError, OSError, zlib.error) as error:
        raise DataCorrupt(f"{path}: {error}") from error


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes from an IDX file, gzipped or not. Raises DataCorrupt when it is not one."""
    try:
        with _open(path) as file:
            shape = _read_header(path, file)
            expected = math.prod(shape)
            content = file.read(expected + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataCorrupt(f"{path}: {error}") from error
    if len(content) != expected:
        came = f"only {len(content)}" if len(content) < expected else "more"
        raise DataCorrupt(f"{path}: its header announces {shape}, which are {expected} bytes, but {came} follow")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_header(path: Path, file: BinaryIO) -> tuple[int, ...]:
    start = file.read(4)
    try:
        zeros, element_type, num_dimensions = struct.unpack(">HBB", start)
        if zeros != 0 or element_type != 8:
            raise DataCorrupt(f"{path}: expected an IDX file of unsigned bytes, which begins 00 00 08, got {start!r}")
        sizes = file.read(4 * num_dimensions)
        return struct.unpack(f">{num_dimensions}I", sizes)
    except struct.error:
        raise DataCorrupt(f"{path}: too short for the header of an IDX file") from None


def _image_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or 0 in shape:
        raise DataCorrupt(f"{path}: expected images (N, height, width), got an array of shape {shape}")
    return shape[0], shape[1], shape[2]


def _read_images(path: Path) -> Images:
    images = read_idx(path)
    count, height, width = _image_shape(path, images.shape)
    return images.reshape(count, 1, height, width)


def _read_labels(path: Path) -> Labels:
    return checked_labels(str(path), read_idx(path))
