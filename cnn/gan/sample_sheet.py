"""A picture of what a generator makes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnn.gan.adversaries import Adversaries
from cnn.sheets import sheet

COLUMNS = 10
MAX_ROWS = 100


def sample_sheet(adversaries: Adversaries, classes: Tensor, names: Sequence[str], randomness: torch.Generator) -> bytes:
    """A PNG with a row of `COLUMNS` generated images for each of `classes` (N,), at most `MAX_ROWS`.

    `names` are those of all classes of the dataset.
    """
    classes = classes[:MAX_ROWS]
    images = adversaries.images(classes.repeat_interleave(COLUMNS), randomness).cpu().numpy()
    columns = [images[column::COLUMNS] for column in range(COLUMNS)]
    return sheet(columns, [names[label] for label in classes.tolist()])
