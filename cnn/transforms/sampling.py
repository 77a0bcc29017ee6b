"""Geometric transforms that move whole pixels: any number of them are one motion and one gather."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Motion:
    """What a whole-pixel transform does to sample n: a shift, then mirroring, along each of the two axes.

    Both are (2, N), the vertical axis first: `shift` in pixels down and to the right, int64, and `mirror`, bool.
    """

    shift: Tensor
    mirror: Tensor


def shifting(down: Tensor, right: Tensor) -> Motion:
    """A motion that mirrors nothing."""
    shift = torch.stack([down, right])
    return Motion(shift, torch.zeros_like(shift, dtype=torch.bool))


def mirroring(upside_down: Tensor, mirrored: Tensor) -> Motion:
    """A motion that shifts nothing."""
    mirror = torch.stack([upside_down, mirrored])
    return Motion(torch.zeros_like(mirror, dtype=torch.int64), mirror)


def followed_by(first: Motion, second: Motion) -> Motion:
    """Both as one; what the first pushes out of the picture, the second can bring back.

    To mirror and then to shift is to shift the other way and then to mirror.
    """
    turned = torch.where(first.mirror, -second.shift, second.shift)
    return Motion(first.shift + turned, first.mirror ^ second.mirror)


def resample(images: Tensor, motion: Motion, fill: int = 0) -> Tensor:
    """The images (N, C, H, W) with their pixels moved; `fill` stands where a pixel comes from outside."""
    num_images, channels, height, width = images.shape
    source = torch.nn.functional.pad(images, (1, 1, 1, 1), value=fill)
    first = torch.arange(num_images * channels, device=images.device) * (height + 2)
    rows = first.reshape(num_images, channels, 1) + _sources(motion.shift[0], motion.mirror[0], height)[:, None]
    # Whole rows are copied first, which is much faster than pixels one by one.
    lines = source.reshape(-1, width + 2).index_select(0, rows.flatten()).reshape(num_images, channels, height, -1)
    columns = _sources(motion.shift[1], motion.mirror[1], width)[:, None, None]
    return lines.gather(3, columns.expand(-1, channels, height, -1))


def _sources(shift: Tensor, mirror: Tensor, size: int) -> Tensor:
    """Where the pixels along an axis come from, (N, size), in a picture with one more pixel at either end."""
    position = torch.arange(1, size + 1, device=shift.device)
    position = torch.where(mirror[:, None], size + 1 - position, position)
    return position.sub_(shift[:, None]).clamp_(0, size + 1)
