"""Adadelta. Torch has no fused kernel of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cnn.native.updates import Rule
from cnn.optim.base import ElementWise, count_up, subtract


class Adadelta(ElementWise):
    """G ← ρG + (1 - ρ) g ⊙ g; Δ = √(D + ε) / √(G + ε) ⊙ g; D ← ρD + (1 - ρ) Δ ⊙ Δ; W ← W - μΔ (Zeiler, 2012).

    Args:
        parameters: those that are trained.
        lr: μ.
        rho: ρ.
        eps: ε.
    """

    rule = Rule.ADADELTA
    states = ("square_avg", "acc_delta")

    def __init__(self, parameters: Iterable[Tensor], lr: float, rho: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "rho": rho, "eps": eps})
        for state in self.state.values():
            state["step"] = torch.zeros(())  # in checkpoints, as torch's Adadelta has it

    def count(self, group: dict[str, Any]) -> None:
        count_up([self.state[weight]["step"] for weight in group["params"]])

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["lr"], group["rho"], 1 - group["rho"], group["eps"]

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        squares, moved = states
        rho, eps = group["rho"], group["eps"]
        torch._foreach_mul_(squares, rho)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - rho)
        roots = torch._foreach_add(squares, eps)
        torch._foreach_sqrt_(roots)
        deltas = torch._foreach_add(moved, eps)
        torch._foreach_sqrt_(deltas)
        torch._foreach_div_(deltas, roots)
        torch._foreach_mul_(deltas, gradients)
        torch._foreach_mul_(moved, rho)
        torch._foreach_addcmul_(moved, deltas, deltas, value=1 - rho)
        subtract(weights, deltas, group["lr"], self.found_inf)
