"""Geometric transforms that move whole pixels, composed into one gather.

Such a transform says for each pixel of the result from which row and column of the source it comes, per sample. Any
number of them compose exactly, in order, before a single pixel is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Result pixel (i, j) of sample n is source pixel (rows[n, i], columns[n, j]); OUTSIDE where there is none.

    `rows` is (N, height) and `columns` (N, width), both int64.
    """

    rows: Tensor
    columns: Tensor


def identity(num_images: int, height: int, width: int, device: torch.device) -> Sampling:
    """Every pixel from where it is."""
    rows = torch.arange(height, device=device).expand(num_images, height)
    columns = torch.arange(width, device=device).expand(num_images, width)
    return Sampling(rows, columns)


@dataclass(frozen=True, slots=True)
class Motion:
    """What a whole-pixel transform does to sample n: a shift, then mirroring. All of shape (N,).

    `down` and `right` are int64 pixels, `upside_down` and `mirrored` bool.
    """

    down: Tensor
    right: Tensor
    upside_down: Tensor
    mirrored: Tensor


def shifting(down: Tensor, right: Tensor) -> Motion:
    """A motion that mirrors nothing."""
    no = torch.zeros_like(down, dtype=torch.bool)
    return Motion(down, right, no, no)


def mirroring(upside_down: Tensor, mirrored: Tensor) -> Motion:
    """A motion that shifts nothing."""
    zero = torch.zeros_like(mirrored, dtype=torch.int64)
    return Motion(zero, zero, upside_down, mirrored)


def move(sampling: Sampling, motion: Motion) -> Sampling:
    """`sampling`, followed by `motion`."""
    shifted = shift(sampling, motion.down, motion.right)
    return flip_vertically(flip_horizontally(shifted, motion.mirrored), motion.upside_down)


def shift(sampling: Sampling, down: Tensor, right: Tensor) -> Sampling:
    """Move sample n by down[n] and right[n] pixels (N,), which may be negative; what enters is OUTSIDE."""
    return Sampling(_shift(sampling.rows, down), _shift(sampling.columns, right))


def _shift(source: Tensor, distance: Tensor) -> Tensor:
    size = source.shape[1]
    position = torch.arange(size, device=source.device) - distance[:, None]
    inside = (position >= 0) & (position < size)
    return source.gather(1, position.clamp(0, size - 1)).masked_fill(~inside, OUTSIDE)


def flip_horizontally(sampling: Sampling, flip: Tensor) -> Sampling:
    """Mirror the samples n where flip[n] is true, left to right."""
    columns = torch.where(flip[:, None], sampling.columns.flip(1), sampling.columns)
    return Sampling(sampling.rows, columns)


def flip_vertically(sampling: Sampling, flip: Tensor) -> Sampling:
    """Mirror the samples n where flip[n] is true, top to bottom."""
    rows = torch.where(flip[:, None], sampling.rows.flip(1), sampling.rows)
    return Sampling(rows, sampling.columns)


def resample(images: Tensor, sampling: Sampling, fill: int = 0) -> Tensor:
    """The images (N, C, H, W) with their pixels moved; `fill` stands where a pixel comes from OUTSIDE."""
    num_images, channels, height, width = images.shape
    # One more row and column behind the image hold the fill: that is where OUTSIDE, modulo the larger size, points.
    source = torch.nn.functional.pad(images, (0, 1, 0, 1), value=fill)
    first = torch.arange(num_images * channels, device=images.device) * (height + 1)
    rows = first.reshape(num_images, channels, 1) + sampling.rows.remainder(height + 1)[:, None]
    # Whole rows are copied first, which is much faster than pixels one by one.
    lines = source.reshape(-1, width + 1).index_select(0, rows.flatten()).reshape(num_images, channels, -1, width + 1)
    columns = sampling.columns.remainder(width + 1)[:, None, None]
    return lines.gather(3, columns.expand(-1, channels, rows.shape[2], -1))
