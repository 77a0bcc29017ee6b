"""What the optimizers of this package share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from cnn.native.library import used
from cnn.native.updates import Layout, Rule


class Optimizer(torch.optim.Optimizer):
    """One whose every parameter has a gradient in every step."""

    found_inf: Tensor | None = None
    """Where it is 1 the step leaves the weights as they are, as in torch's fused optimizers."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Mark `step` as wrapped already: torch's hooks and profiler records, unused here, are a tenth of its time."""
        super().__init_subclass__(**kwargs)
        cls.step.hooked = True  # type: ignore[attr-defined]


class ElementWise(Optimizer):
    """One that updates each weight from its own gradient and states, all of which start at zero.

    The compiled library does so in one pass, where this process uses one that can. Elsewhere, and where the weights may
    have to stay as they are, `update` does the same by torch.

    Args:
        parameters: those that are trained.
        defaults: of their group.
    """

    rule: ClassVar[Rule]
    states: ClassVar[tuple[str, ...]]
    """Names of the states that have the shape of their weight, in the order in which the rule takes them."""

    def __init__(self, parameters: Iterable[Tensor], defaults: dict[str, Any]) -> None:
        super().__init__(parameters, defaults)
        self._layouts = [Layout.of(group["params"]) for group in self.param_groups]
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            self.state[parameter].update({name: torch.zeros_like(parameter) for name in self.states})

    def states_of(self, weights: Sequence[Tensor]) -> list[list[Tensor]]:
        """For each name in `states` those of the weights."""
        found = [self.state[weight] for weight in weights]
        return [[state[name] for state in found] for name in self.states]

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        library = used() if self.found_inf is None else None
        for group, layout in zip(self.param_groups, self._layouts, strict=True):
            self.count(group)
            gradients = [weight.grad for weight in group["params"]]
            operands = [group["params"], gradients, *self.states_of(group["params"])]
            if library and layout and layout.is_that_of(gradients):
                library.updates.apply(self.rule, layout, operands, self.coefficients(group))
            else:
                self.update(group, *operands)

    def count(self, group: dict[str, Any]) -> None:
        """Count the step that is to be taken, for those that need its number."""

    def coefficients(self, group: dict[str, Any]) -> Sequence[float]:
        """Those that the struct of the rule in `updates.cpp` has, in its order."""
        raise NotImplementedError

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        """Take the step of a group by torch, as `found_inf` says."""
        raise NotImplementedError


def subtract(
    weights: list[Tensor], updates: list[Tensor] | tuple[Tensor, ...], lr: float, found_inf: Tensor | None
) -> None:
    """W ← W - lr · update, but for weights that stay as they are, whatever the updates, where `found_inf` is 1."""
    if found_inf is None:
        torch._foreach_add_(weights, updates, alpha=-lr)
        return
    torch._fused_sgd_(
        weights,
        updates,
        [],
        weight_decay=0.0,
        momentum=0.0,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        found_inf=found_inf,
    )


def count_up(steps: list[Tensor]) -> None:
    """Add 1 to each: on the CPU a number would become a tensor for each of them, and take three times as long."""
    torch._foreach_add_(steps, [torch.ones_like(steps[0])] * len(steps))
