"""Sheets of small pictures: rows with a label and columns of images, or images with a caption each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MIN_CELL, MAX_CELL = 48, 128
"""Sides in pixels: smaller images are enlarged by a whole factor, larger ones are made smaller."""
GAP = 4
LABEL_WIDTH = 110
MAX_LABEL = 16
FONT_SIZE = 12
LINE_HEIGHT = 15
CAPTION_WIDTH = 116
NUM_COLUMNS, NUM_CAPTIONED_COLUMNS = 8, 5
BACKGROUND = 255


def sheet(columns: Sequence[NDArray[Any]], labels: Sequence[str], *, first_apart: bool = False) -> bytes:
    """A PNG with a row for each label.

    Args:
        columns: for each, its images from top to bottom, (rows, C, H, W), values 0 to 255; of images with neither one
            nor three channels the first is shown.
        labels: what stands before the rows; long ones are cut.
        first_apart: leave a wider gap behind the first column.
    """
    cell, kind = _cell(columns[0])
    size = (LABEL_WIDTH + len(columns) * (cell[0] + GAP) + GAP, len(labels) * (cell[1] + GAP) + GAP)
    canvas = Image.new("RGB", size, (BACKGROUND,) * 3)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for row, label in enumerate(labels):
        top = GAP + row * (cell[1] + GAP)
        pen.text((GAP, top + cell[1] // 2 - 6), _short(label), fill=(0, 0, 0), font=font)
        for column, images in enumerate(columns):
            left = LABEL_WIDTH + column * (cell[0] + GAP) + (GAP if column and first_apart else 0)
            canvas.paste(_picture(images[row]).resize(cell, kind), (left, top))
    return _png(canvas)


def gallery(images: NDArray[Any], captions: Sequence[Sequence[str]] = ()) -> bytes:
    """A PNG of images (N, C, H, W), values 0 to 255 as in `sheet`, row by row; below each the lines of its caption."""
    cell, kind = _cell(images)
    num_lines = len(captions[0]) if captions else 0
    width = max(cell[0], CAPTION_WIDTH if captions else 0) + GAP
    height = cell[1] + num_lines * LINE_HEIGHT + (2 * GAP if captions else GAP)
    num_columns = min(NUM_CAPTIONED_COLUMNS if captions else NUM_COLUMNS, len(images))
    size = (num_columns * width + GAP, -(-len(images) // num_columns) * height + GAP)
    canvas = Image.new("RGB", size, (BACKGROUND,) * 3)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for place, image in enumerate(images):
        left, top = GAP + place % num_columns * width, GAP + place // num_columns * height
        canvas.paste(_picture(image).resize(cell, kind), (left, top))
        for line, text in enumerate(captions[place] if captions else ()):
            pen.text((left, top + cell[1] + line * LINE_HEIGHT), _short(text), fill=(0, 0, 0), font=font)
    return _png(canvas)


def of_all_classes(labels: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Places of the first image of each class, of the second and so on, in order of the classes."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])
    turn = np.arange(len(labels)) - first
    chosen: NDArray[np.int64] = order[np.argsort(turn, kind="stable")[:number]]
    return chosen


def _cell(images: NDArray[Any]) -> tuple[tuple[int, int], Image.Resampling]:
    """How large images (N, C, H, W) are drawn, (width, height), and how they are brought to that size."""
    height, width = images.shape[2:]
    factor = max(1, -(-MIN_CELL // max(height, width)))
    scale = min(factor, MAX_CELL / max(height, width))
    kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return (max(1, round(width * scale)), max(1, round(height * scale))), kind


def _png(canvas: Image.Image) -> bytes:
    file = io.BytesIO()
    canvas.save(file, format="PNG")
    return file.getvalue()


def _short(label: str) -> str:
    """What fits beside the pictures."""
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 2]}.."


def _picture(image: NDArray[Any]) -> Image.Image:
    pixels = np.rint(image).clip(0, 255).astype(np.uint8)
    if len(pixels) != 3:
        return Image.fromarray(pixels[0]).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
