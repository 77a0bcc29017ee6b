"""Nadam. Torch's own has no kernel that heeds the finite gate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cnn.native.updates import Rule
from cnn.optim.base import ElementWise


class NAdam(ElementWise):
    """Adam whose first moment looks ahead by Nesterov's rule (Dozat, ICLR workshop 2016).

    With μₖ = β₁ (1 - 0.5 · 0.96^(kψ)) and Πₖ = μ₁ ⋯ μₖ:
    V ← β₁V + (1 - β₁) g; G ← β₂G + (1 - β₂) g ⊙ g;
    W ← W - lr (μₖ₊₁ V / (1 - Πₖ₊₁) + (1 - μₖ) g / (1 - Πₖ)) / (√(G / (1 - β₂ᵏ)) + ε).

    Args:
        parameters: those that are trained.
        lr, betas, eps: as for Adam.
        momentum_decay: ψ.
    """

    rule = Rule.NADAM
    states = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float, momentum_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "momentum_decay": momentum_decay})
        for group in self.param_groups:
            # One count for the group, where the host can read it without waiting: k, and the product of the μ so far.
            first = self.state[group["params"][0]]
            first["step"] = torch.zeros((), dtype=torch.float64)
            first["mu_product"] = torch.ones((), dtype=torch.float64)

    def count(self, group: dict[str, Any]) -> None:
        first = self.state[group["params"][0]]
        first["step"] += 1
        first["mu_product"] *= _mu(group, first["step"].item())

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        k, of_momentum, of_gradient = self._factors(group)
        lr, (beta1, beta2) = group["lr"], group["betas"]
        root = (1 - beta2**k) ** -0.5
        return lr * of_momentum, lr * of_gradient, beta1, 1 - beta1, beta2, 1 - beta2, root, group["eps"]

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        momenta, squares = states
        beta1, beta2 = group["betas"]
        k, of_momentum, of_gradient = self._factors(group)
        # Adam's kernel with a share that makes M = of_momentum V + of_gradient g of the old V, up to a factor. Then
        # V is where the line from M to g comes to when it goes on beyond M.
        factor = of_momentum + of_gradient
        share = beta1 * of_momentum / factor
        torch._fused_adam_(
            weights,
            gradients,
            momenta,
            squares,
            [],
            [torch.full((), k, device=weights[0].device)] * len(weights),
            lr=group["lr"] * factor * (1 - share**k),
            beta1=share,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            found_inf=self.found_inf,
        )
        if of_momentum:  # without, β₁ is 0 and V is g, as is M
            torch._foreach_lerp_(momenta, gradients, -of_gradient / of_momentum)

    def _factors(self, group: dict[str, Any]) -> tuple[float, float, float]:
        """k of this step, and what V and g are multiplied by in it."""
        first = self.state[group["params"][0]]
        k, so_far = first["step"].item(), first["mu_product"].item()
        next_mu = _mu(group, k + 1)
        return k, next_mu / (1 - so_far * next_mu), (1 - _mu(group, k)) / (1 - so_far)


def _mu(group: dict[str, Any], k: float) -> float:
    momentum: float = group["betas"][0] * (1 - 0.5 * 0.96 ** (k * group["momentum_decay"]))
    return momentum
