"""Optimizers with a velocity that holds the learning rate of each step: classical momentum and Nesterov's.

Torch's SGD multiplies the whole velocity by the current learning rate, and its `nesterov=True` is a change of
variables that is the same only while learning rate and momentum are constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Momentum(torch.optim.Optimizer):
    """V ← γV - μ g; W ← W + V, with V = 0 before the first step (Polyak, 1964).

    Args:
        parameters: those that are trained, each with a gradient in every step.
        lr: μ.
        momentum: γ.
    """

    found_inf: Tensor | None = None
    """Where it is 1 the weights stay, as in torch's fused optimizers; the gradients must then be zero."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["velocity"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            velocities = self._velocities(group["params"])
            decay = group["momentum"] if self.found_inf is None else group["momentum"] * (1 - self.found_inf.double())
            torch._foreach_mul_(velocities, decay)
            torch._foreach_add_(velocities, [weight.grad for weight in group["params"]], alpha=-group["lr"])
            torch._foreach_add_(group["params"], velocities)

    def _velocities(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        return [self.state[parameter]["velocity"] for parameter in parameters]


class Nesterov(Momentum):
    """W̃ = W + γV; V ← γV - μ g(W̃); W ← W + V (Nesterov, 1983).

    The parameters hold W, except inside `lookahead()`, where they hold W̃ and where the gradient must be taken.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, lr, momentum)
        self._weights = [[torch.empty_like(weight) for weight in group["params"]] for group in self.param_groups]

    @contextmanager
    def lookahead(self) -> Iterator[None]:
        """Parameters at W̃ inside; afterwards exactly W again."""
        with torch.no_grad():
            for group, weights in zip(self.param_groups, self._weights, strict=True):
                torch._foreach_copy_(weights, group["params"])
                torch._foreach_add_(group["params"], self._velocities(group["params"]), alpha=group["momentum"])
        try:
            yield
        finally:
            with torch.no_grad():
                for group, weights in zip(self.param_groups, self._weights, strict=True):
                    torch._foreach_copy_(group["params"], weights)
