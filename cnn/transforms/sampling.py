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


def resample(images: Tensor, sampling: Sampling, fill: int = 0) -> Tensor:
    """The images (N, C, H, W) with their pixels moved; `fill` stands where a pixel comes from OUTSIDE."""
    num_images, channels, height, width = images.shape
    rows, columns = sampling.rows[:, :, None], sampling.columns[:, None, :]
    outside = (rows == OUTSIDE) | (columns == OUTSIDE)
    # One more source pixel behind the image holds the fill, so that the gather needs no mask afterwards.
    index = (rows * width + columns).masked_fill(outside, height * width)
    source = torch.nn.functional.pad(images.reshape(num_images, channels, height * width), (0, 1), value=fill)
    index = index.reshape(num_images, 1, -1).expand(-1, channels, -1)
    return source.gather(2, index).reshape(num_images, channels, *outside.shape[1:])
