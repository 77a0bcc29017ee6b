"""Geometric transforms that move whole pixels: any number of them are one motion, and one copy of each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnn.transforms.selection import change


@dataclass(frozen=True, slots=True)
class Motion:
    """What a whole-pixel transform does to sample n: a shift, then mirroring, along each of the two axes.

    Both are (2, N), the vertical axis first: `shift` in pixels down and to the right, int64, and `mirror`, bool. No
    shift is longer than `reach`, in pixels along each axis.
    """

    shift: Tensor
    mirror: Tensor
    reach: tuple[int, int]


def shifting(shift: Tensor, reach: tuple[int, int]) -> Motion:
    """A motion that mirrors nothing."""
    return Motion(shift, torch.zeros_like(shift, dtype=torch.bool), reach)


def mirroring(mirror: Tensor) -> Motion:
    """A motion that shifts nothing."""
    return Motion(torch.zeros_like(mirror, dtype=torch.int64), mirror, (0, 0))


def followed_by(first: Motion, second: Motion) -> Motion:
    """Both as one; what the first pushes out of the picture, the second can bring back.

    To mirror and then to shift is to shift the other way and then to mirror.
    """
    turned = torch.where(first.mirror, -second.shift, second.shift)
    reach = first.reach[0] + second.reach[0], first.reach[1] + second.reach[1]
    return Motion(first.shift + turned, first.mirror ^ second.mirror, reach)


def resample(images: Tensor, motion: Motion, fill: int = 0) -> Tensor:
    """The images (N, C, H, W) with their pixels moved; `fill` stands where a pixel comes from outside."""
    moved = _shifted(images, motion, fill) if any(motion.reach) else images.clone()
    for dim, mirror in zip((2, 3), motion.mirror, strict=True):
        moved = change(moved, mirror, lambda samples, _, dim=dim: samples.flip(dim))  # type: ignore[misc]
    return moved


def _shifted(images: Tensor, motion: Motion, fill: int) -> Tensor:
    """Each row of the result is that of a padded copy, begun so many pixels earlier: memory is copied row by row."""
    num_images, channels, height, width = images.shape
    margin = min(motion.reach[1], width)
    # What is left of a row is right of the one above. A row of filling stands above and below each image.
    source = torch.nn.functional.pad(images, (margin, 0, 1, 1), value=fill)
    stride, last = width + margin, source.numel() - width
    down, right = motion.shift
    rows = torch.arange(1, height + 1, device=images.device).sub(down[:, None]).clamp_(0, height + 1).mul_(stride)
    rows += margin - right.clamp(-margin, margin)[:, None]
    planes = torch.arange(num_images * channels, device=images.device) * ((height + 2) * stride)
    # Beyond the last place begin those of the last row, which is of filling.
    places = (planes.view(num_images, channels, 1) + rows[:, None]).flatten().clamp_(max=last)
    return source.as_strided((last + 1, width), (1, 1)).index_select(0, places).view(images.shape)
