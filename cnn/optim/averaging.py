"""Averages of weights over the steps of a run."""

from __future__ import annotations

import torch
from torch import Tensor


class ExponentialMovingAverage:
    """A ← decay · A + (1 - decay) · W after every step; the first step sets A to W.

    Args:
        weights: the tensors W that an optimizer changes in place.
        decay: the share of the average that stays.

    `averages` holds A, in the order of the weights.
    """

    def __init__(self, weights: list[Tensor], decay: float) -> None:
        self.averages = [weight.detach().clone() for weight in weights]
        self._weights = weights
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int, alive: Tensor) -> None:
        """Take in the weights after update `step`, which counts from 1, unless `alive` is 0 instead of 1."""
        if step == 1:
            torch._foreach_copy_(self.averages, self._weights)
            return
        differences = torch._foreach_sub(self._weights, self.averages)
        share = ((1 - self._decay) * alive).to(differences[0].dtype)  # of another one, each is multiplied by itself
        torch._foreach_mul_(differences, share)
        torch._foreach_add_(self.averages, differences)
