"""A picture of what a generator makes."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from cnn.gan.adversaries import Adversaries

COLUMNS = 10
GAP = 2
BACKGROUND = 128
MAX_ROWS = 100


def sample_sheet(adversaries: Adversaries, classes: Tensor, randomness: torch.Generator) -> bytes:
    """A PNG with a row of `COLUMNS` generated images for each of `classes` (N,), at most `MAX_ROWS`; grey or RGB."""
    classes = classes[:MAX_ROWS]
    images = adversaries.images(classes.repeat_interleave(COLUMNS), randomness).cpu()
    # Only one and three channels are pictures; of others the first is shown.
    images = images if images.shape[1] == 3 else images[:, :1]
    rows = images.reshape(len(classes), COLUMNS, *images.shape[1:])
    padded = torch.nn.functional.pad(rows, (GAP, 0, GAP, 0), value=BACKGROUND)
    sheet = padded.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    sheet = torch.nn.functional.pad(sheet.permute(2, 0, 1), (0, GAP, 0, GAP), value=BACKGROUND)
    pixels = sheet.permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()
