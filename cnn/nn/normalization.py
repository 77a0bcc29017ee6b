"""Input normalizations: modules whose buffers are statistics of the training split and travel with the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Raw(nn.Module):
    """The pixel values 0..255 as they are, as floats."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class Standardize(nn.Module):
    """(x - mean) / std per channel; images (N, C, H, W), uint8 or float in 0..255."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("std", torch.ones(num_channels))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean[:, None, None]) / self.std[:, None, None]


class MinMax(nn.Module):
    """(x - minimum) / range per channel; images (N, C, H, W), uint8 or float in 0..255."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("minimum", torch.zeros(num_channels))
        self.register_buffer("range", torch.ones(num_channels))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.minimum[:, None, None]) / self.range[:, None, None]
