"""Blurring and erasing of images (N, C, H, W), with parameters of each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Convolve with a Gaussian of standard deviation sigma[n] pixels, cut off after `radius`, reflected at the border.

    sigma (N,) may be 0, which changes nothing. `radius` must be below the image's sides. Float32 comes out.
    """
    distance = torch.arange(radius + 1, device=images.device)
    weights = (-0.5 * (distance / sigma.clamp(min=1e-3)[:, None]) ** 2).exp()
    weights = weights / (2 * weights.sum(dim=1, keepdim=True) - weights[:, :1])
    rows = _blur(images.float(), weights, dim=2)
    return _blur(rows, weights, dim=3)


def _blur(images: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Shifted copies added up, which is faster than a grouped convolution with a kernel of each sample's own."""
    radius, size = weights.shape[1] - 1, images.shape[dim]
    border = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
    padded = pad(images, border, mode="reflect")
    weights = weights[:, :, None, None, None]
    result = images * weights[:, 0]
    for k in range(1, radius + 1):
        pair = padded.narrow(dim, radius - k, size) + padded.narrow(dim, radius + k, size)
        result.addcmul_(pair, weights[:, k])
    return result


def boxes(top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, 1, H, W) that are true in sample n's rectangle; what is outside the image is cut off."""
    rows = torch.arange(size[0], device=top.device)
    columns = torch.arange(size[1], device=top.device)
    vertical = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    horizontal = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (vertical[:, None, :, None]) & horizontal[:, None, None, :]


def box_sides(area: Tensor, ratio: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Heights and widths in whole pixels of rectangles with shares `area` of the image and `ratio` height : width."""
    pixels = area * math.prod(size)
    height = (pixels * ratio).sqrt().round().clamp(1, size[0]).long()
    width = (pixels / ratio).sqrt().round().clamp(1, size[1]).long()
    return height, width
