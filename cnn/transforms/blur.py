"""Blurring and erasing of images (N, C, H, W), with parameters of each sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

from cnn.transforms.draws import Draws
from cnn.transforms.selection import change, select

BLOCK = 32
"""Pixels that are computed at once along an axis, by one product with a matrix."""
LARGE_PIXELS = 64 * 64
"""Images with more pixels are erased one by one on a CPU."""
NEGLIGIBLE = 1e-9
"""Weights below are 0: a product with a number too small for float32's exponent takes a hundred times as long."""


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Convolve with a Gaussian of standard deviation sigma[n] pixels, cut off after `radius`, reflected at the border.

    sigma (N,) may be 0, which changes nothing. `radius` must be below the image's sides. Float32 comes out.
    """
    distance = torch.arange(radius + 1, device=images.device)
    weights = (-0.5 * (distance / sigma.clamp(min=1e-3)[:, None]) ** 2).exp()
    weights = threshold(weights, NEGLIGIBLE, 0.0)
    weights = weights / (2 * weights.sum(dim=1, keepdim=True) - weights[:, :1])
    images, (height, width) = images.float(), images.shape[2:]
    columns = _matrices(weights, width)
    rows = columns if height == width else _matrices(weights, height)
    lines = images.flatten(1, 2)
    parts = [lines[:, :, near] @ columns[:, near, block] for block, near in _blocks(width, radius)]
    lines = _joined(parts, dim=2).view(images.shape)
    parts = [rows[:, None, near, block].mT @ lines[:, :, near] for block, near in _blocks(height, radius)]
    return _joined(parts, dim=2)


def _blocks(size: int, radius: int) -> Iterator[tuple[slice, slice]]:
    """Parts of a side, and what they are computed from."""
    for start in range(0, size, BLOCK):
        yield slice(start, start + BLOCK), slice(max(start - radius, 0), start + BLOCK + radius)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _matrices(weights: Tensor, size: int) -> Tensor:
    """What a convolution does to a row of `size` pixels from the right, reflection included: (N, size, size)."""
    return (weights @ _places(weights.shape[1] - 1, size, weights.device).flatten(1)).view(-1, size, size)


@lru_cache(maxsize=16)
def _places(radius: int, size: int, device: torch.device) -> Tensor:
    """[k, i, j] is how often pixel i is seen at the distance k, to the left and right, from pixel j."""
    place = torch.arange(size, device=device)
    seen = pad(place[None].float(), (radius, radius), mode="reflect")[0].unfold(0, size, 1)
    hit = (seen[:, None] == place[:, None]).float()  # of the 2 · radius + 1 distances with their sign
    places = hit[radius:] + hit[: radius + 1].flip(0)
    places[0] /= 2
    return places


def boxes(top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, 1, H, W) that are true in sample n's rectangle; what is outside the image is cut off."""
    vertical, horizontal = _within(top, height, size[0]), _within(left, width, size[1])
    return vertical[:, None, :, None] & horizontal[:, None, None, :]


def _within(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Masks (N, size), true where the middle of a pixel is less than half the length from that of the segment."""
    doubled = torch.arange(1, 2 * size, 2, device=start.device)
    return (doubled - (2 * start + length)[:, None]).abs_() < length[:, None]


def erase(
    images: Tensor, chosen: Tensor, places: tuple[Tensor, Tensor, Tensor, Tensor], value: int | None, draws: Draws
) -> Tensor:
    """Put `value`, or noise, into the rectangles (top, left, height, width) of the samples where chosen[n] is true."""
    size = (images.shape[2], images.shape[3])
    if images.device.type == "cpu" and math.prod(size) > LARGE_PIXELS:
        return _erase_one_by_one(images.clone(), chosen, places, value, draws)

    def erased(samples: Tensor, rows: Tensor) -> Tensor:
        top, left, height, width = (number[rows] for number in places)
        inside = boxes(top, left, height, width, size)
        if value is None:
            return select(inside, draws.of(rows).bytes(*samples.shape[1:]).to(samples.dtype), samples)
        return select(inside, torch.full_like(samples[:1], value), samples)

    return change(images.clone(), chosen, erased)


def _erase_one_by_one(
    images: Tensor, chosen: Tensor, places: tuple[Tensor, Tensor, Tensor, Tensor], value: int | None, draws: Draws
) -> Tensor:
    """In place. Less work where a mask of the whole image, or its noise, costs more than a turn of a loop."""
    for row in chosen.nonzero()[:, 0].tolist():
        top, left, height, width = (int(number[row]) for number in places)
        patch = images[row, :, top : top + height, left : left + width]
        patch.copy_(draws.part(row, row + 1).bytes(*patch.shape)[0]) if value is None else patch.fill_(value)
    return images


def box_sides(area: Tensor, ratio: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Heights and widths in whole pixels of rectangles with shares `area` of the image and `ratio` height : width."""
    pixels = area * math.prod(size)
    height = (pixels * ratio).sqrt().round().clamp(1, size[0]).long()
    width = (pixels / ratio).sqrt().round().clamp(1, size[1]).long()
    return height, width
