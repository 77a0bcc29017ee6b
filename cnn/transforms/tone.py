"""The operations that only the policies use. Images are float32 (N, C, H, W) in 0..255."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.transforms.color import blend


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the `bits` (N,) upper bits of 8."""
    step = (2.0 ** (8 - bits))[:, None, None, None]
    return (images / step).floor() * step


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at or above `threshold` (N,)."""
    return torch.where(images >= threshold[:, None, None, None], 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a constant channel stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6) * 255, images)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards a smoothed copy, whose kernel is 1 around a 5, over 13; the border stays."""
    if min(images.shape[2:]) < 3:
        return images
    smooth = images.clone()
    box = torch.nn.functional.avg_pool2d(images, 3, stride=1) * 9
    smooth[:, :, 1:-1, 1:-1] = (box + 4 * images[:, :, 1:-1, 1:-1]) / 13
    return blend(images, smooth, factor)


def equalize(images: Tensor) -> Tensor:
    """Spread each channel's values, as whole numbers, so that their histogram is as flat as can be; as PIL's."""
    values = images.round().long().flatten(2)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    last = counts.gather(2, values.amax(dim=2, keepdim=True))
    step = (values.shape[2] - last) // 255
    table = (counts.cumsum(dim=2) - counts + step // 2) // step.clamp(min=1)
    result = table.clamp(0, 255).gather(2, values).reshape(images.shape).float()
    return torch.where((step == 0)[..., None], images, result)
