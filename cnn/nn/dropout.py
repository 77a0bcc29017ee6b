"""Dropout whose masks come from a generator of its own, so that a resumed run draws the same ones.

`generator` is torch's default one until `cnn.randomness.attach_generator` sets the run's own.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad


class Dropout(nn.Module):
    """Keeps each element with probability `keep_prob`; see `cnn.dropout.Dropout` for the two scalings."""

    generator: torch.Generator | None = None

    def __init__(self, keep_prob: float, scaling: Literal["train", "test"]) -> None:
        super().__init__()
        self.keep_prob = keep_prob
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * self.keep_prob if self.scaling == "test" else x
        mask = torch.empty_like(x).bernoulli_(self.keep_prob, generator=self.generator)
        if self.scaling == "train":
            mask.div_(self.keep_prob)
        return x * mask

    def extra_repr(self) -> str:
        return f"keep_prob={self.keep_prob}, scaling={self.scaling!r}"


class MaskedDropout(nn.Module):
    """Keeps or drops, with one draw for all elements that share the first `mask_dimensions` indices."""

    generator: torch.Generator | None = None

    def __init__(self, keep_prob: float, mask_dimensions: int) -> None:
        super().__init__()
        self.keep_prob = keep_prob
        self.mask_dimensions = mask_dimensions

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        shape = x.shape[: self.mask_dimensions] + (1,) * (x.dim() - self.mask_dimensions)
        mask = x.new_empty(shape).bernoulli_(self.keep_prob, generator=self.generator)
        return x * mask.div_(self.keep_prob)

    def extra_repr(self) -> str:
        return f"keep_prob={self.keep_prob}, mask_dimensions={self.mask_dimensions}"


class DropBlock(nn.Module):
    """See `cnn.dropout.DropBlock`."""

    generator: torch.Generator | None = None

    def __init__(self, keep_prob: float, block_size: int) -> None:
        super().__init__()
        self.keep_prob = keep_prob
        self.block_size = block_size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        block = self.block_size
        height, width = x.shape[-2:]
        centres = (height - block + 1, width - block + 1)
        gamma = (1 - self.keep_prob) / block**2 * (height * width) / (centres[0] * centres[1])
        dropped = x.new_empty(*x.shape[:2], *centres).bernoulli_(min(gamma, 1.0), generator=self.generator)
        # Each centre spreads over its block: a maximum over the blocks that reach a pixel.
        spread = pad(dropped, (block - 1,) * 4)
        mask = 1 - max_pool2d(spread, block, stride=1)
        return x * mask * (mask.numel() / mask.sum().clamp_(min=1))

    def extra_repr(self) -> str:
        return f"keep_prob={self.keep_prob}, block_size={self.block_size}"
