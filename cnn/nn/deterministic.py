"""Layers whose gradient torch sums in no fixed order on a GPU, computed there by what has one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

EXACT_ON = "cpu"
"""The kind of device on which torch's own gradients have a fixed order."""


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """See `cnn.pooling.AdaptiveAvgPool2d`: elsewhere than on a CPU by two products with matrices of shares."""

    output_size: int

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == EXACT_ON or self.output_size == 1:
            return super().forward(input)
        rows, columns = (_shares(side, self.output_size, input) for side in input.shape[2:])
        pooled: Tensor = rows @ input @ columns.mT
        return pooled.contiguous(memory_format=torch.channels_last)


def _shares(size: int, windows: int, like: Tensor) -> Tensor:
    """How much each of `size` pixels counts in each of the windows, (windows, size); torch's places of the windows."""
    window, pixel = torch.arange(windows, device=like.device)[:, None], torch.arange(size, device=like.device)
    starts, stops = window * size // windows, ((window + 1) * size + windows - 1) // windows
    inside = (pixel >= starts) & (pixel < stops)
    return inside.to(like.dtype) / (stops - starts)


class LocalResponseNorm(nn.LocalResponseNorm):
    """See `cnn.normalization_layers.LocalResponseNorm`: elsewhere than on a CPU by a mean over two dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == EXACT_ON:
            return super().forward(input)
        squares = input.square().flatten(2)[:, None]
        squares = pad(squares, (0, 0, self.size // 2, (self.size - 1) // 2))
        activity = avg_pool2d(squares, (self.size, 1), stride=1).view(input.shape)
        return input / (self.k + self.alpha * activity) ** self.beta
