"""The best epoch of a run by a series that is watched, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cnn.early_stopping import improves

PREFIX = "best."
"""Of the names of its tensors in a checkpoint."""


class BestEpoch:
    """What was best until now.

    Args:
        monitor: the series that decides; None to keep nothing.

    `weights` are copies, None as long as no epoch was better than none; `epoch` and `step` are those of its end.
    """

    def __init__(self, monitor: str | None) -> None:
        self._monitor = monitor
        self._value: float | None = None
        self.epoch = 0
        self.step = 0
        self.weights: dict[str, Tensor] | None = None

    def update(self, values: Mapping[str, float], epoch: int, step: int, weights: Mapping[str, Tensor]) -> None:
        """Take in the series of an epoch, and the weights at its end."""
        if self._monitor and improves(self._monitor, values[self._monitor], self._value):
            self._value, self.epoch, self.step = values[self._monitor], epoch, step
            self.weights = {name: tensor.clone() for name, tensor in weights.items()}

    def tensors(self, step: int) -> dict[str, Tensor]:
        """The weights, unless they are those of `step`, which is now: not copies."""
        if self.weights is None or self.step == step:
            return {}
        return {f"{PREFIX}{name}": tensor for name, tensor in self.weights.items()}

    def memory(self) -> dict[str, Any] | None:
        """What it must know beside the weights to go on later, fit for JSON."""
        return None if self.weights is None else {"value": self._value, "epoch": self.epoch, "step": self.step}

    def recall(
        self, memory: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], step: int, weights: Mapping[str, Tensor]
    ) -> None:
        """Go on from what `memory` and `tensors` gave at `step`, whose weights these are."""
        if memory is None:
            return
        self._value, self.epoch, self.step = memory["value"], memory["epoch"], memory["step"]
        best = weights if self.step == step else {name: tensors[f"{PREFIX}{name}"] for name in weights}
        # With the strides of the network's own: another layout in memory gives other last bits.
        self.weights = {name: torch.empty_like(tensor).copy_(best[name]) for name, tensor in weights.items()}
