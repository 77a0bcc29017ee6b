"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cnn.native.updates import Rule
from cnn.optim.base import ElementWise, subtract


class Lion(ElementWise):
    """C = β₁V + (1 - β₁) g; W ← W - μ (sign C + λW); V ← β₂V + (1 - β₂) g (Chen et al., NeurIPS 2023).

    Args:
        parameters: those that are trained.
        lr: μ.
        betas: β₁ and β₂.
        weight_decay: λ.
    """

    rule = Rule.LION
    states = ("exp_avg",)

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return group["lr"], group["lr"] * group["weight_decay"], beta1, 1 - beta1, beta2, 1 - beta2

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        (momenta,) = states
        beta1, beta2 = group["betas"]
        signs = torch._foreach_lerp(momenta, gradients, 1 - beta1)
        torch._foreach_sign_(signs)
        if group["weight_decay"]:
            torch._foreach_add_(signs, weights, alpha=group["weight_decay"])
        subtract(weights, signs, group["lr"], self.found_inf)
        torch._foreach_lerp_(momenta, gradients, 1 - beta2)
