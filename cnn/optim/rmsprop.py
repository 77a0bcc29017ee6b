"""RMSProp as the lecture has it. Torch's own has no fused kernel, and a slow loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cnn.native.updates import Rule
from cnn.optim.base import ElementWise


class RMSProp(ElementWise):
    """G ← γG + (1 - γ) g ⊙ g; W ← W - μ g / (√G + ε), with G = 0 before the first step (Hinton, 2012).

    Args:
        parameters: those that are trained.
        lr: μ.
        alpha: γ.
        eps: ε.
    """

    rule = Rule.RMSPROP
    states = ("square_avg",)

    def __init__(self, parameters: Iterable[Tensor], lr: float, alpha: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "alpha": alpha, "eps": eps})
        self._forever = torch.full((), torch.inf, device=self.param_groups[0]["params"][0].device)

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["lr"], group["alpha"], 1 - group["alpha"], group["eps"]

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        # Adam whose first moment is the gradient (β₁ = 0) and whose bias is gone (k = ∞): one pass through memory.
        torch._fused_adam_(
            weights,
            gradients,
            gradients,
            states[0],
            [],
            [self._forever] * len(gradients),
            lr=group["lr"],
            beta1=0.0,
            beta2=group["alpha"],
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            found_inf=self.found_inf,
        )
