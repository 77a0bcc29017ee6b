"""The formats that an upload may have. To add one: its class, its name in `Format`, and its reader in `validation`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Spec
from cnn.local_datasets import Layout, Side, TestFraction

Column = Annotated[str, Field(min_length=1, max_length=200)]


class Images(Spec):
    """How image files (PNG, JPEG, WebP or BMP, at most 50 million pixels, 8 bits a channel) become arrays."""

    image_size: Annotated[tuple[Side, Side], Field(strict=False)] | None = None
    """Height and width to which every image is resized (bilinear, antialiased); null when all have one size."""
    channels: Literal[1, 3] = 3
    """1 to convert to grey, 3 to RGB."""
    test_fraction: TestFraction | None = None
    """Share of the images of every class that is for testing; null when the upload divides them."""


class ImageFolder(Images):
    """A zip, tar or tar.gz of `train/<class>/<image>` and `test/<class>/<image>`, or with `test_fraction` of
    `<class>/<image>`; one folder around all of it does not matter."""

    type: Literal["image_folder"] = "image_folder"


class CSV(Images):
    """A zip, tar or tar.gz of images and one table with a row for each: its path beside the table, its label and,
    without `test_fraction`, its split, `train` or `test`."""

    type: Literal["csv"] = "csv"
    file_column: Column = "file"
    label_column: Column = "label"
    split_column: Column = "split"


class NPZ(Spec):
    """An NPZ file with the arrays `train_images`, `train_labels`, `test_images`, `test_labels` (uint8, integers from
    0), or with `test_fraction` with `images` and `labels`."""

    type: Literal["npz"] = "npz"
    layout: Layout | None = None
    """Axes of the images; null to tell them by the axis of 1 or 3 channels."""
    test_fraction: TestFraction | None = None
    """Share of the images of every class that is for testing; null when the file divides them."""


class IDX(Spec):
    """A zip, tar or tar.gz of four files in the format and under the names of MNIST's, gzipped or not."""

    type: Literal["idx"] = "idx"


Format = TypeAliasType("Format", Annotated[ImageFolder | CSV | NPZ | IDX, Field(discriminator="type")])
