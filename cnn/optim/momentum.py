"""Plain gradient descent, and optimizers with a velocity that holds the learning rate of each step.

Torch's SGD multiplies the whole velocity by the current learning rate, and its `nesterov=True` is a change of
variables that is the same only while learning rate and momentum are constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cnn.native.library import used
from cnn.native.updates import Layout, Rule
from cnn.optim.base import ElementWise, subtract


class SGD(ElementWise):
    """W ← W - μ g (Robbins & Monro, 1951).

    Args:
        parameters: those that are trained.
        lr: μ.
    """

    rule = Rule.SGD
    states = ()

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (group["lr"],)

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        torch._fused_sgd_(
            weights,
            gradients,
            [],
            weight_decay=0.0,
            momentum=0.0,
            lr=group["lr"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
            found_inf=self.found_inf,
        )


class Momentum(ElementWise):
    """V ← γV - μ g; W ← W + V, with V = 0 before the first step (Polyak, 1964).

    Args:
        parameters: those that are trained.
        lr: μ.
        momentum: γ.
    """

    rule = Rule.MOMENTUM
    states = ("velocity",)

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["momentum"], group["lr"]

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        if not group["momentum"]:  # which torch's kernel refuses; nobody will look at the velocity
            subtract(weights, gradients, group["lr"], self.found_inf)
            return
        # Torch's kernel, which goes through memory once: B <- momentum B + (1 - dampening) g; W <- W - lr B.
        torch._fused_sgd_(
            weights,
            gradients,
            states[0],
            weight_decay=0.0,
            momentum=group["momentum"],
            lr=-1.0,
            dampening=1 + group["lr"],
            nesterov=False,
            maximize=False,
            is_first_step=False,
            found_inf=self.found_inf,
        )


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
        for group, places, layout in zip(self.param_groups, self._ahead, self._layouts, strict=True):
            self._look(group, places, layout)
            for parameter, place in zip(group["params"], places, strict=True):
                parameter.data = place
        try:
            yield
        finally:
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.data = weight

    @torch.no_grad()
    def _look(self, group: dict[str, Any], places: list[Tensor], layout: Layout | None) -> None:
        """Write W̃ of a group to `places`."""
        weights, momentum = group["params"], group["momentum"]
        (velocities,) = self.states_of(weights)
        library = used()
        if library and layout:
            library.updates.apply(Rule.LOOKAHEAD, layout, [places, weights, velocities], [momentum])
            return
        if weights[0].device.type != "cpu":  # where two passes through memory cost less than many small operations
            torch._foreach_copy_(places, weights)
            torch._foreach_add_(places, velocities, alpha=momentum)
            return
        for place, weight, velocity in zip(places, weights, velocities, strict=True):
            torch.add(weight, velocity, alpha=momentum, out=place)
