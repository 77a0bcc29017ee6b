"""Dropout whose masks come from a generator of its own, so that a resumed run draws the same ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Keeps each element with probability `keep_prob`; see `cnn.dropout.Dropout` for the two scalings.

    `generator` is torch's default one until `cnn.randomness.attach_generator` sets the run's own.
    """

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
