"""Transforms that make one sample of two. Targets are probabilities (N, classes)."""

from __future__ import annotations

from torch import Tensor

from cnn.transforms.blur import boxes
from cnn.transforms.selection import select


def mixup(images: Tensor, targets: Tensor, partner: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """share[n] · sample n + (1 - share[n]) · sample partner[n], of images and targets alike; float32 images."""
    images = images.float()
    weight = share[:, None, None, None]
    mixed = (images * weight).addcmul_(images.index_select(0, partner), 1 - weight)
    return mixed, _mix(targets, partner, share)


def cutmix(
    images: Tensor, targets: Tensor, partner: Tensor, share: Tensor, center: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """A rectangle of sample partner[n] in sample n; its sides are sqrt(1 - share[n]) of the image's.

    What reaches beyond the image is cut off. Targets are mixed by the area that remains.
    center: row and column (N,) as shares of the height and width.
    """
    height, width = images.shape[2:]
    side = (1 - share).clamp(min=0).sqrt()
    high, wide = (side * height).long(), (side * width).long()
    top, left = (center[0] * height).long() - high // 2, (center[1] * width).long() - wide // 2
    inside = boxes(top, left, high, wide, (height, width))
    mixed = select(inside, images.index_select(0, partner), images)
    return mixed, _mix(targets, partner, 1 - inside.float().mean(dim=(1, 2, 3)))


def _mix(targets: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    return targets * share[:, None] + targets[partner] * (1 - share[:, None])
