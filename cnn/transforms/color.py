"""Photometric transforms of images (N, C, H, W) with values in 0..255, one parameter (N,) a sample; float32 comes out.

Definitions as torchvision's `transforms.v2.functional` on float images, with 255 in place of 1, and without rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Red, green and blue in the grey value, ITU-R BT.601."""

EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""Of the covariance of ImageNet's pixels in 0..1; rows are red, green and blue, columns belong to the eigenvalues."""


def _each(parameter: Tensor) -> Tensor:
    return parameter[:, None, None, None]


def grey(images: Tensor) -> Tensor:
    """Luma (N, 1, H, W); an image of one channel is its own."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = LUMA
    return (images[:, :1] * red).add_(images[:, 1:2], alpha=green).add_(images[:, 2:], alpha=blue)


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor · image + (1 - factor) · other, clamped to 0..255."""
    return torch.lerp(other, images.float(), _each(factor)).clamp_(0, 255)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """factor · x, clamped."""
    return (images * _each(factor)).clamp_(0, 255)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the mean grey value of the image, clamped."""
    return blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from or towards the grey value of each pixel, clamped."""
    return blend(images, grey(images), factor)


def grayscale(images: Tensor, chosen: Tensor) -> Tensor:
    """The grey value in every channel, of the samples where chosen[n] is true."""
    return torch.where(_each(chosen), grey(images), images.float())


def gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """255 · (x / 255)^exponent."""
    return (images / 255).pow(_each(exponent)) * 255


def add_light(images: Tensor, coefficients: Tensor) -> Tensor:
    """Add 255 · Σ_i coefficient_i · λ_i · v_i, coefficients (N, 3), to each pixel, clamped."""
    values = torch.tensor(EIGENVALUES, device=images.device)
    vectors = torch.tensor(EIGENVECTORS, device=images.device)
    return (images + 255 * ((coefficients * values) @ vectors.T)[:, :, None, None]).clamp_(0, 255)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of RGB images by `shift` of a full circle, at the same saturation and value of HSV."""
    images = images.float()
    value, brightest = images.max(dim=1, keepdim=True)
    span = value - images.amin(dim=1, keepdim=True)
    # Where red is brightest, the hue is (green - blue) / span, and so on round the circle of six sextants.
    differences = images.roll(-1, dims=1) - images.roll(-2, dims=1)
    sextant = differences.gather(1, brightest) / torch.where(span == 0, 1.0, span) + 2 * brightest
    sextant = sextant + 6 * _each(shift)
    k = torch.stack([(sextant[:, 0] + n) % 6 for n in (5, 3, 1)], dim=1)
    return value - span * torch.minimum(k, 4 - k).clamp(0, 1)
