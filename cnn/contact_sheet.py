"""What the network really sees: `python -m cnn.contact_sheet spec.json -o sheet.png`.

A picture with a row for each of some training images: its label, the image itself, then what the augmentation of a spec
makes of it, once for each epoch shown. The transforms are those of training, the random numbers are the sheet's own.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError
from torch import Tensor

from cnn.augmentation import build_augmentation
from cnn.data import Data
from cnn.errors import TrainingError
from cnn.randomness import derived_generator
from cnn.spec import TrainingSpec
from cnn.splits import train_val_split
from cnn.transforms.draws import Draws

ROWS = 10
EPOCHS = 7
MIN_CELL, MAX_CELL = 48, 128
"""Sides in pixels: smaller images are enlarged by a whole factor, larger ones are made smaller."""
GAP = 4
LABEL_WIDTH = 110
MAX_LABEL = 16
FONT_SIZE = 12
BACKGROUND = 255


def contact_sheet(spec: TrainingSpec, data: Data, *, rows: int = ROWS, epochs: int = EPOCHS) -> bytes:
    """A PNG of `rows` training images of as many classes as there are, each beside `epochs` augmented versions.

    Equal arguments give equal bytes. Generated images (`gan`) and what happens inside the network are not shown; of
    images with neither one nor three channels the first channel is.
    """
    kept, _ = train_val_split(data.train_labels, spec.split.val_fraction, spec.split.num_train, spec.split.seed)
    shown = _of_all_classes(data.train_labels[kept], rows)
    images, labels = data.train_images[kept[shown]], data.train_labels[kept[shown]]
    originals = torch.from_numpy(images)
    columns = [originals, *_augmented(spec, originals, torch.from_numpy(labels), torch.from_numpy(shown), epochs)]
    names = [spec.dataset.info.labels[label] for label in labels]
    file = io.BytesIO()
    _draw(columns, names).save(file, format="PNG")
    return file.getvalue()


def _of_all_classes(labels: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Places of the first image of each class, of the second and so on, in order of the classes."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])
    turn = np.arange(len(labels)) - first
    chosen: NDArray[np.int64] = order[np.argsort(turn, kind="stable")[:number]]
    return chosen


def _augmented(spec: TrainingSpec, images: Tensor, labels: Tensor, samples: Tensor, epochs: int) -> list[Tensor]:
    augment = build_augmentation(spec.augmentation, spec.dataset.info.num_classes)
    seed = spec.training.seed
    versions = []
    for epoch in range(1, epochs + 1):
        generator = derived_generator(torch.device("cpu"), seed, "contact_sheet", epoch)
        versions.append(augment(images, labels, Draws(generator, samples, epoch, seed))[0])
    return versions


def _draw(columns: list[Tensor], names: list[str]) -> Image.Image:
    height, width = columns[0].shape[2:]
    factor = max(1, -(-MIN_CELL // max(height, width)))
    scale = min(factor, MAX_CELL / max(height, width))
    cell = max(1, round(width * scale)), max(1, round(height * scale))
    size = (LABEL_WIDTH + len(columns) * (cell[0] + GAP) + GAP, len(names) * (cell[1] + GAP) + GAP)
    sheet = Image.new("RGB", size, (BACKGROUND,) * 3)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for row, name in enumerate(names):
        top = GAP + row * (cell[1] + GAP)
        pen.text((GAP, top + cell[1] // 2 - 6), _short(name), fill=(0, 0, 0), font=font)
        for column, images in enumerate(columns):
            # The original stands a little apart.
            left = LABEL_WIDTH + column * (cell[0] + GAP) + (GAP if column else 0)
            kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
            sheet.paste(_picture(images[row]).resize(cell, kind), (left, top))
    return sheet


def _short(name: str) -> str:
    """What fits beside the pictures."""
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 2]}.."


def _picture(image: Tensor) -> Image.Image:
    pixels = image.float().round().clamp(0, 255).to(torch.uint8)
    if len(pixels) != 3:
        return Image.fromarray(pixels[0].contiguous().numpy()).convert("RGB")
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cnn.contact_sheet", description="Draw what the network sees.")
    parser.add_argument("spec", type=Path, help="JSON file, as in the body of POST /v1/jobs under `spec`")
    parser.add_argument("-o", "--output", type=Path, default=Path("augmentation.png"), help="the PNG to write")
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"), help="where datasets lie")
    parser.add_argument("--rows", type=int, default=ROWS, help="training images")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="augmented versions of each")
    arguments = parser.parse_args()
    try:
        spec = TrainingSpec.model_validate_json(arguments.spec.read_text())
        data = spec.dataset.load(arguments.data_dir)
    except (OSError, ValidationError, TrainingError) as error:
        sys.stderr.write(f"{arguments.spec}: {error}\n")
        return 2
    arguments.output.write_bytes(contact_sheet(spec, data, rows=arguments.rows, epochs=arguments.epochs))
    sys.stdout.write(f"{arguments.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
