"""What the policies choose from: operations with one strength a sample, applied to the samples that drew them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn.transforms import color, tone, warping

Operation = Callable[[Tensor, Tensor, "Reach"], Tensor]
"""Float images (n, C, H, W), strengths (n,) and the reach give images; strengths of `SIGNED` ones are in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What strength 1 means: a slope, a share of the side, pixels at most, degrees, a change of a factor, bits."""

    shear: float
    translate: float
    pixels: int
    rotate: float
    enhance: float
    bits: int


NARROW = Reach(shear=0.3, translate=150 / 331, pixels=1_000_000, rotate=30, enhance=0.9, bits=4)
"""Of RandAugment (Cubuk et al., 2020), as in torchvision."""
WIDE = Reach(shear=0.99, translate=1.0, pixels=32, rotate=135, enhance=0.99, bits=6)
"""Of TrivialAugment Wide (Müller & Hutter, ICCV 2021): 32 pixels, but never more than the side."""


def _shear_x(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    x = strength * reach.shear
    return warping.warp(images, warping.shearing(x, torch.zeros_like(x)))


def _shear_y(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    y = strength * reach.shear
    return warping.warp(images, warping.shearing(torch.zeros_like(y), y))


def _translate_x(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    right = strength * min(reach.translate * images.shape[3], reach.pixels)
    return warping.warp(images, warping.translation(right, torch.zeros_like(right)))


def _translate_y(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    down = strength * min(reach.translate * images.shape[2], reach.pixels)
    return warping.warp(images, warping.translation(torch.zeros_like(down), down))


def _rotate(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    return warping.warp(images, warping.rotation(strength * reach.rotate))


def _brightness(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    return color.brightness(images, 1 + strength * reach.enhance)


def _contrast(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    return color.contrast(images, 1 + strength * reach.enhance)


def _saturation(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    return color.saturation(images, 1 + strength * reach.enhance)


def _sharpness(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    return tone.sharpness(images, 1 + strength * reach.enhance)


def _posterize(images: Tensor, strength: Tensor, reach: Reach) -> Tensor:
    return tone.posterize(images, 8 - (strength.abs() * reach.bits).round())


def _solarize(images: Tensor, strength: Tensor, _reach: Reach) -> Tensor:
    return tone.solarize(images, 255 * (1 - strength.abs()))


def _autocontrast(images: Tensor, _strength: Tensor, _reach: Reach) -> Tensor:
    return tone.autocontrast(images)


def _equalize(images: Tensor, _strength: Tensor, _reach: Reach) -> Tensor:
    return tone.equalize(images)


def _identity(images: Tensor, _strength: Tensor, _reach: Reach) -> Tensor:
    return images


def operations(channels: int) -> tuple[Operation, ...]:
    """The fourteen of both papers; without saturation where there is no colour."""
    grey = (
        _identity,
        _shear_x,
        _shear_y,
        _translate_x,
        _translate_y,
        _rotate,
        _brightness,
        _contrast,
        _sharpness,
        _posterize,
        _solarize,
        _autocontrast,
        _equalize,
    )
    return grey if channels == 1 else (*grey, _saturation)


def apply_drawn(images: Tensor, drawn: Tensor, strength: Tensor, reach: Reach, among: Sequence[Operation]) -> Tensor:
    """Operation among[drawn[n]] with strength[n], in [-1, 1], on sample n.

    On a CPU of the samples that drew it alone. Elsewhere of all samples: to ask how many did would be to wait for the
    device.
    """
    if images.device.type != "cpu":
        return _all_of_all(images, drawn, strength, reach, among)
    order = drawn.argsort(stable=True)
    counts = torch.bincount(drawn, minlength=len(among)).tolist()
    parts = zip(among, torch.split(images[order], counts), torch.split(strength[order], counts), strict=True)
    changed = [operation(part, its_strength, reach) for operation, part, its_strength in parts if len(part)]
    result = torch.empty_like(images)
    result[order] = torch.cat(changed)
    return result


def _all_of_all(images: Tensor, drawn: Tensor, strength: Tensor, reach: Reach, among: Sequence[Operation]) -> Tensor:
    result = images
    for number, operation in enumerate(among):
        changed = operation(images, strength, reach)
        result = torch.where((drawn == number)[:, None, None, None], changed, result)
    return result
