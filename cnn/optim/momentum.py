"""Optimizers with a velocity that holds the learning rate of each step: classical momentum and Nesterov's.

Torch's SGD multiplies the whole velocity by the current learning rate, and its `nesterov=True` is a change of
variables that is the same only while learning rate and momentum are constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cnn.optim.base import Optimizer


class Momentum(Optimizer):
    """V ← γV - μ g; W ← W + V, with V = 0 before the first step (Polyak, 1964).

    Args:
        parameters: those that are trained.
        lr: μ.
        momentum: γ.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["velocity"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            # Torch's kernel, which goes through memory once: B <- momentum B + (1 - dampening) g; W <- W - lr B.
            torch._fused_sgd_(
                group["params"],
                [weight.grad for weight in group["params"]],
                self._velocities(group["params"]),
                weight_decay=0.0,
                momentum=group["momentum"],
                lr=-1.0,
                dampening=1 + group["lr"],
                nesterov=False,
                maximize=False,
                is_first_step=False,
                found_inf=self.found_inf,
            )

    def _velocities(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        return [self.state[parameter]["velocity"] for parameter in parameters]


class Nesterov(Momentum):
    """W̃ = W + γV; V ← γV - μ g(W̃); W ← W + V (Nesterov, 1983).

    The parameters hold W, except inside `lookahead()`, where they hold W̃ and where the gradient must be taken.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, lr, momentum)
        self._ahead = [[torch.empty_like(weight) for weight in group["params"]] for group in self.param_groups]

    @contextmanager
    def lookahead(self) -> Iterator[None]:
        """Parameters at W̃ inside; afterwards exactly W again, whose memory lies aside meanwhile."""
        parameters = [weight for group in self.param_groups for weight in group["params"]]
        weights = [parameter.data for parameter in parameters]
        for group, places in zip(self.param_groups, self._ahead, strict=True):
            for weight, velocity, place in zip(group["params"], self._velocities(group["params"]), places, strict=True):
                weight.data = torch.add(weight.data, velocity, alpha=group["momentum"], out=place)
        try:
            yield
        finally:
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.data = weight
