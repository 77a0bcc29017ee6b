"""Changes of some samples of a batch, or of some pixels: `torch.where` is not vectorized, so that it costs more than
most of the transforms whose results it would choose from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def change(images: Tensor, chosen: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The images with function(samples, rows) in the places of the samples n where chosen[n] is true.

    Takes over the images (N, C, H, W), contiguous, and may overwrite them. Elsewhere than on a CPU the function gets
    all samples: to ask how many are chosen would be to wait for the device.
    """
    if images.device.type != "cpu":
        everything = torch.arange(len(images), device=images.device)
        return torch.where(chosen[:, None, None, None], function(images, everything), images)
    rows = chosen.nonzero()[:, 0]
    if len(rows) == len(images):
        return function(images, rows)
    if len(rows):
        changed = function(images.index_select(0, rows), rows)
        _wide(images).index_copy_(0, rows, _wide(changed.contiguous()))
    return images


def _wide(images: Tensor) -> Tensor:
    """Samples as rows of eight bytes an element where they can be: index_copy_ takes its time for each element."""
    rows = images.view(len(images), -1)
    return rows.view(torch.int64) if rows.shape[1] * rows.element_size() % 8 == 0 else rows


def select(inside: Tensor, new: Tensor, images: Tensor) -> Tensor:
    """torch.where(inside, new, images) for a mask (N, 1, H, W) and images (N, C, H, W) of one dtype, by their bits."""
    integer = torch.uint8 if images.dtype == torch.uint8 else torch.int32
    mask = inside.to(integer).neg_()
    old = images.view(integer)
    return (old ^ new.view(integer)).bitwise_and_(mask).bitwise_xor_(old).view(images.dtype)
