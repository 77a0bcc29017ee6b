"""Folders of image files, one folder for each class."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from cnn.data import Data, Images, Labels, build_data, hold_out_test, split_counts
from cnn.datasets import DatasetInfo
from cnn.errors import DataCorrupt, DatasetMissing

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Those with 8 bits a value: Pillow would cut 16 bits and floats off at 255."""
ORIENTATION = 0x0112
"""Number of the EXIF field."""
MAX_PIXELS = 50_000_000
MAX_NAMED = 10

Size = tuple[int, int]
Sample = tuple[Path, int]
"""A file and its class number."""


class ImageFolder:
    """The image files below `path`, in the order of their names.

    Args:
        path: holds `train/<class>` and `test/<class>`, or with `test_fraction` the folders of the classes.
        image_size: height and width to which every image is resized; None when all have one size.
        channels: 1 for grey, 3 for RGB.
        test_fraction: share of the images of every class that is for testing.

    Raises DatasetMissing, or DataCorrupt when the folders do not look like this.
    """

    def __init__(self, path: Path, image_size: Size | None, channels: int, test_fraction: float | None) -> None:
        self._path = path
        self._image_size = image_size
        self._channels = channels
        self._test_fraction = test_fraction
        self._train_folder = path if test_fraction is not None else path / "train"
        self.class_folders = _class_folders(self._train_folder)
        self.test_folders: list[Path] = []
        self.classes = tuple(folder.name for folder in self.class_folders)
        if test_fraction is None:
            self.test_folders = _class_folders(path / "test")
            unknown = [folder.name for folder in self.test_folders if folder.name not in self.classes]
            if unknown:
                raise DataCorrupt(f"{path / 'test'}: the classes {', '.join(unknown)} are not in {path / 'train'}")

    def first_file(self) -> Path:
        """The one whose size all must have, when they are not resized."""
        return _image_files(self.class_folders[0])[0]

    def train_files(self) -> list[Sample]:
        """Of the training split, or with `test_fraction` of all images."""
        return self._samples(self.class_folders)

    def test_files(self) -> list[Sample]:
        return self._samples(self.test_folders)

    def _samples(self, folders: Sequence[Path]) -> list[Sample]:
        return [(file, self.classes.index(folder.name)) for folder in folders for file in _image_files(folder)]

    def info(self) -> DatasetInfo:
        """From the names of the files and the header of the first; the pixels are not read."""
        train, num_test = self.train_files(), len(self.test_files())
        num_train = len(train)
        if self._test_fraction is not None:
            num_train, num_test = split_counts(str(self._path), num_train, self._test_fraction)
        height, width = self._image_size or _header_size(train[0][0])
        return DatasetInfo("image_folder", (self._channels, height, width), self.classes, num_train, num_test)

    def read(self) -> Data:
        where = str(self._path)
        train, test = self.train_files(), self.test_files()
        images, labels = self._decode([*train, *test])
        if self._test_fraction is not None:
            return hold_out_test(where, images, labels, self._test_fraction)
        count = len(train)
        return build_data(where, images[:count], labels[:count], images[count:], labels[count:])

    def _decode(self, samples: Sequence[Sample]) -> tuple[Images, Labels]:
        """Raises DataCorrupt, naming every file that cannot be read, or the first whose size differs."""
        size = self._image_size or _header_size(samples[0][0])
        images = np.empty((len(samples), self._channels, *size), dtype=np.uint8)
        unreadable = []
        for index, (file, _) in enumerate(samples):
            try:
                pixels = decode(file, self._image_size, self._channels)
            except DataCorrupt as error:
                unreadable.append(error.message)
                continue
            if pixels.shape[1:] != size:
                raise DataCorrupt(
                    f"{file}: it is {_written(pixels.shape[1:])}, the images before it are {_written(size)} "
                    f"(first: {samples[0][0]})",
                    "set dataset.image_size to [height, width], and all are resized to it",
                )
            images[index] = pixels
        if unreadable:
            more = f" and {len(unreadable) - MAX_NAMED} more" if len(unreadable) > MAX_NAMED else ""
            raise DataCorrupt(
                f"{len(unreadable)} of {len(samples)} files cannot be used: {'; '.join(unreadable[:MAX_NAMED])}{more}",
                "replace or remove them",
            )
        return images, np.array([label for _, label in samples], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Header:
    """What `decode` will lose of an image, or turn."""

    size: Size
    has_frames: bool
    has_alpha: bool
    is_turned: bool
    """Whether EXIF asks for it to be shown in another direction."""


def read_header(file: Path | BinaryIO) -> Header:
    """Without decoding the pixels. Raises DataCorrupt."""
    try:
        with _open(file) as image:
            alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
            turned = image.getexif().get(ORIENTATION, 1) != 1
            return Header((image.height, image.width), getattr(image, "is_animated", False), alpha, turned)
    except _DECODING_ERRORS as error:
        raise DataCorrupt(f"{file}: {error}") from error


def decode(file: Path | BinaryIO, image_size: Size | None, channels: int) -> Images:
    """The pixels (channels, H, W) of an image file, resized by antialiased bilinear interpolation to `image_size`.

    Transparency is dropped, the rotation that EXIF may ask for is not applied, and of several frames the first counts.
    Raises DataCorrupt.
    """
    try:
        with _open(file) as image:
            converted = image.convert("L" if channels == 1 else "RGB")
    except _DECODING_ERRORS as error:
        raise DataCorrupt(f"{file}: {error}") from error
    if image_size:
        height, width = image_size
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.moveaxis(pixels, 2, 0)


# What Pillow's decoders raise on damaged files; UnidentifiedImageError is an OSError.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def _open(file: Path | BinaryIO) -> Image.Image:
    """The image with its header read; the pixels are not decoded yet. Raises DataCorrupt or what Pillow raises."""
    with warnings.catch_warnings():
        # Pillow warns of sizes that the limit below refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=FORMATS)
    width, height = image.size
    problem = None
    if width * height > MAX_PIXELS:
        problem = f"expected at most {MAX_PIXELS:,} pixels, got {width} × {height}"
    elif image.mode not in MODES:
        problem = f"expected 8 bits a channel, got Pillow's mode {image.mode}"
    if problem:
        image.close()
        raise DataCorrupt(f"{file}: {problem}")
    return image


def _header_size(file: Path) -> Size:
    return read_header(file).size


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetMissing(
            f"There is no folder {folder.absolute()}. Expected <path>/train/<class>/<image> and "
            "<path>/test/<class>/<image>, or with dataset.test_fraction <path>/<class>/<image>"
        )
    entries = _visible(folder)
    for entry in entries:
        if not entry.is_dir():
            raise DataCorrupt(f"{entry}: expected only folders here, one for each class")
    if not entries:
        raise DataCorrupt(f"{folder}: expected folders, one for each class, got none")
    return entries


def _image_files(folder: Path) -> list[Path]:
    files = _visible(folder)
    for file in files:
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise DataCorrupt(f"{file}: expected image files ({', '.join(SUFFIXES)}) in the folder of a class")
    if not files:
        raise DataCorrupt(f"{folder}: expected image files ({', '.join(SUFFIXES)}), got none")
    return files


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataCorrupt(f"{folder}: {error.strerror}") from error


def _written(size: tuple[int, ...]) -> str:
    return f"{size[0]} × {size[1]} (height × width)"
