"""Input normalizations: modules whose buffers are statistics of the training split and travel with the weights.

All take images (N, C, H, W), uint8 or float in 0..255.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Raw(nn.Module):
    """The pixel values 0..255 as they are, as floats."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class Standardize(nn.Module):
    """(x - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("std", torch.ones(num_channels))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean[:, None, None]) / self.std[:, None, None]


class MinMax(nn.Module):
    """(x - minimum) / range per channel."""

    minimum: Tensor
    range: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("minimum", torch.zeros(num_channels))
        self.register_buffer("range", torch.ones(num_channels))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.minimum[:, None, None]) / self.range[:, None, None]


class PerImageStandardize(nn.Module):
    """(x - mean) / max(std, 1/√n) of each image."""

    def forward(self, images: Tensor) -> Tensor:
        values = images.float()
        std, mean = torch.std_mean(values, dim=(1, 2, 3), correction=0, keepdim=True)
        return (values - mean) / std.clamp(min=1 / math.sqrt(values[0].numel()))


class GlobalContrast(nn.Module):
    """scale · (x - mean) / max(eps, √(bias + variance)) of each image, with values 0 to 1."""

    def __init__(self, scale: float, bias: float, eps: float) -> None:
        super().__init__()
        self.scale = scale
        self.bias = bias
        self.eps = eps

    def forward(self, images: Tensor) -> Tensor:
        values = images / 255
        variance, mean = torch.var_mean(values, dim=(1, 2, 3), correction=0, keepdim=True)
        return self.scale * (values - mean) / (self.bias + variance).sqrt().clamp(min=self.eps)


class ZCAWhitening(nn.Module):
    """matrix · (x - mean), x the values of an image as a vector, 0 to 1."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        size = math.prod(shape)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("matrix", torch.eye(size))

    def forward(self, images: Tensor) -> Tensor:
        centred = images.flatten(1) / 255 - self.mean
        return (centred @ self.matrix).view(images.shape)
