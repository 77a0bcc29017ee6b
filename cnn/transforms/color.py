"""Photometric transforms of images (N, C, H, W) with values in 0..255, one parameter (N,) a sample; float32 comes out.

Definitions as torchvision's `transforms.v2.functional` on float images, with 255 in place of 1, and without rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.transforms.constants import constant
from cnn.transforms.selection import change

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
    """factor · image + (1 - factor) · other, clamped to 0..255; `other` has a value of each pixel or of each image."""
    # Not torch.lerp, which is not vectorized where it broadcasts.
    weight = _each(factor)
    scaled = images.float() * weight
    if other[0].numel() == 1:
        return scaled.add_(other * (1 - weight)).clamp_(0, 255)
    return scaled.addcmul_(other, 1 - weight).clamp_(0, 255)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """factor · x, clamped."""
    return (images.float() * _each(factor)).clamp_(0, 255)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the mean grey value of the image, clamped."""
    images = images.float()
    means = images.mean(dim=(2, 3), keepdim=True)  # the grey value of a mean is the mean of grey values
    return blend(images, grey(means), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from or towards the grey value of each pixel, clamped."""
    images = images.float()
    return blend(images, grey(images), factor)


def grayscale(images: Tensor, chosen: Tensor) -> Tensor:
    """The grey value in every channel, of the samples where chosen[n] is true."""
    floats = images.to(torch.float32, copy=True)
    return change(floats, chosen, lambda samples, _: grey(samples).expand_as(samples))


def gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """255 · (x / 255)^exponent, for exponents above 0."""
    # A logarithm and an exponential take a sixth of the time of torch.pow; 0 is -inf in between, and 0 again.
    return images.float().div(255).log_().mul_(_each(exponent)).exp_().mul_(255)


def add_light(images: Tensor, coefficients: Tensor) -> Tensor:
    """Add 255 · Σ_i coefficient_i · λ_i · v_i, coefficients (N, 3), to each pixel, clamped."""
    values, vectors = constant(EIGENVALUES, images.device), constant(EIGENVECTORS, images.device)
    return (images + 255 * ((coefficients * values) @ vectors.T)[:, :, None, None]).clamp_(0, 255)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of RGB images by `shift` of a full circle, at the same saturation and value of HSV."""
    images = images.float()
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = value - low
    # All angles in sextants, and times the span, so that nothing is divided. On this hexagon a colour's distance from
    # red is 1 + green + blue - red, of colours in 0..1, on the side of green or on that of blue.
    angle = (green + blue).sub_(red).sub_(low).add_(span).copysign_(green - blue)
    angle.addcmul_(span, 6 * shift[:, None, None])
    result = torch.empty_like(images)
    for channel, place in enumerate((0, 2, -2)):
        # Distances from the channel's own place are 8 at most: the way round is the other one if it is shorter.
        distance = torch.sub(angle, span, alpha=place).abs_()
        distance = torch.minimum(distance, torch.sub(distance, span, alpha=6).abs_())
        share = torch.sub(distance, span, alpha=2).neg_().clamp_(min=0)
        torch.add(low, torch.minimum(share, span), out=result[:, channel])
    return result
