"""Datasets in files of one's own, whose shape and classes are known from the files alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cnn.base import Spec
from cnn.errors import DataCorrupt, DatasetMissing

if TYPE_CHECKING:
    from cnn.data import Data
    from cnn.datasets import DatasetInfo
    from cnn.formats.image_folder import ImageFolder as Files

Side = Annotated[int, Field(ge=1, le=8192)]


class Local(Spec):
    """A dataset in files of the machine that trains: only they tell its shape and classes.

    A class says what `watched` files change when the content does, how to `inspect` them, and how to `read` them.
    """

    type: str
    local_path: ClassVar[bool] = True
    known_digest: ClassVar[None] = None
    path: Annotated[Path, Field(strict=False)]
    """Where the files are; a relative path begins at the folder in which the process was started."""

    @property
    def info(self) -> DatasetInfo:
        """From headers and the names of files. Raises DatasetMissing or DataCorrupt."""
        return _inspected(self, _state(self.watched()))

    def load(self, data_dir: Path) -> Data:
        """Decoded once for each state of the files, by their paths, sizes and times of modification."""
        from cnn.data import decoded_once

        key = f"{self.model_dump_json()}{_state(self.sources())}"
        name = hashlib.sha256(key.encode()).hexdigest()
        return decoded_once(data_dir / "datasets" / self.type / name, self.read)

    def watched(self) -> Sequence[Path]:
        """What changes when `info` does."""
        raise NotImplementedError

    def sources(self) -> Sequence[Path]:
        """What changes when the images or labels do."""
        return self.watched()

    def inspect(self) -> DatasetInfo:
        raise NotImplementedError

    def read(self) -> Data:
        raise NotImplementedError


def _state(files: Sequence[Path]) -> str:
    try:
        stats = [(str(file.absolute()), file.stat()) for file in files]
    except OSError as error:
        raise DataCorrupt(f"{error.filename}: {error.strerror}") from error
    return json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


@lru_cache(maxsize=64)
def _inspected(dataset: Local, state: str) -> DatasetInfo:  # noqa: ARG001
    """The info of a dataset whose files are in this state, which is a part of the key."""
    return dataset.inspect()


TestFraction = Annotated[float, Field(gt=0, lt=1)]


class ImageFolder(Local):
    """PNG, JPEG, WebP or BMP files, one folder for each class, whose name is the label; classes in order of names.

    With `test_fraction` null, the splits are `<path>/train/<class>/…` and `<path>/test/<class>/…`; else all images
    are in `<path>/<class>/…`. Files and folders whose names begin with a dot are left out.
    """

    type: Literal["image_folder"] = "image_folder"
    image_size: Annotated[tuple[Side, Side], Field(strict=False)] | None = None
    """Height and width to which every image is resized (bilinear, antialiased); null when all have one size."""
    channels: Literal[1, 3] = 3
    """1 to convert to grey, 3 to RGB."""
    test_fraction: TestFraction | None = None
    """Share of the images of every class that is for testing, always the same ones."""

    def files(self) -> Files:
        from cnn.formats.image_folder import ImageFolder as Files

        return Files(self.path, self.image_size, self.channels, self.test_fraction)

    def watched(self) -> Sequence[Path]:
        files = self.files()
        return [*files.class_folders, *files.test_folders, files.first_file()]

    def sources(self) -> Sequence[Path]:
        files = self.files()
        return [file for file, _ in (*files.train_files(), *files.test_files())]

    def inspect(self) -> DatasetInfo:
        return self.files().info()

    def read(self) -> Data:
        return self.files().read()


Layout = Literal["NHW", "NHWC", "NCHW"]
"""Axes of an array of images: their number, height, width and channels."""


class NPZ(Local):
    """A file of NumPy arrays: `train_images`, `train_labels`, `test_images`, `test_labels`; uint8 and integers from 0.

    With `test_fraction`, it has `images` and `labels` instead.
    """

    type: Literal["npz"] = "npz"
    layout: Layout | None = None
    """Axes of the images; null to tell them by the axis of 1 or 3 channels."""
    test_fraction: TestFraction | None = None
    """Share of the images of every class that is for testing, always the same ones."""

    def watched(self) -> Sequence[Path]:
        if not self.path.is_file():
            raise DatasetMissing(f"There is no file {self.path.absolute()}")
        return [self.path]

    def inspect(self) -> DatasetInfo:
        from cnn.formats.npz import npz_info

        return npz_info(self.path, self.layout, self.test_fraction)

    def read(self) -> Data:
        from cnn.formats.npz import read_npz

        return read_npz(self.path, self.layout, self.test_fraction)


class IDX(Local):
    """A folder with four files in the format and under the names of MNIST's, gzipped or not: grey images."""

    type: Literal["idx"] = "idx"

    def watched(self) -> Sequence[Path]:
        from cnn.formats.idx import find_idx

        files = find_idx(self.path)
        return [files.train_images, files.train_labels, files.test_images, files.test_labels]

    def inspect(self) -> DatasetInfo:
        from cnn.formats.idx import find_idx

        return find_idx(self.path).info(self.type)

    def read(self) -> Data:
        from cnn.formats.idx import find_idx

        return find_idx(self.path).read()
