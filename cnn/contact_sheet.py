"""What the network really sees: `python -m cnn.contact_sheet spec.json -o sheet.png`.

A picture with a row for each of some training images: its label, the image itself, then what the augmentation of a spec
makes of it, once for each epoch shown. The transforms are those of training, the random numbers are the sheet's own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from cnn.augmentation import build_augmentation
from cnn.data import Data
from cnn.errors import TrainingError
from cnn.randomness import derived_generator
from cnn.sheets import of_all_classes, sheet
from cnn.spec import TrainingSpec
from cnn.splits import train_val_split
from cnn.transforms.draws import Draws

ROWS = 10
EPOCHS = 7


def contact_sheet(spec: TrainingSpec, data: Data, *, rows: int = ROWS, epochs: int = EPOCHS) -> bytes:
    """A PNG of `rows` training images of as many classes as there are, each beside `epochs` augmented versions.

    Equal arguments give equal bytes. Generated images (`gan`) and what happens inside the network are not shown; of
    images with neither one nor three channels the first channel is.
    """
    kept, _ = train_val_split(data.train_labels, spec.split.val_fraction, spec.split.num_train, spec.split.seed)
    shown = of_all_classes(data.train_labels[kept], rows)
    images, labels = data.train_images[kept[shown]], data.train_labels[kept[shown]]
    originals = torch.from_numpy(images)
    columns = [originals, *_augmented(spec, originals, torch.from_numpy(labels), torch.from_numpy(shown), epochs)]
    names = [spec.dataset.info.labels[label] for label in labels]
    return sheet([column.numpy() for column in columns], names, first_apart=True)


def _augmented(spec: TrainingSpec, images: Tensor, labels: Tensor, samples: Tensor, epochs: int) -> list[Tensor]:
    augment = build_augmentation(spec.augmentation, spec.dataset.info.num_classes)
    seed = spec.training.seed
    versions = []
    for epoch in range(1, epochs + 1):
        generator = derived_generator(torch.device("cpu"), seed, "contact_sheet", epoch)
        versions.append(augment(images, labels, Draws(generator, samples, epoch, seed))[0])
    return versions


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
