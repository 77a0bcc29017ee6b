"""Nadam. Torch's own has no kernel that heeds the finite gate."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cnn.optim.base import Optimizer


class NAdam(Optimizer):
    """Adam whose first moment looks ahead by Nesterov's rule (Dozat, ICLR workshop 2016).

    With μₖ = β₁ (1 - 0.5 · 0.96^(kψ)) and Πₖ = μ₁ ⋯ μₖ:
    V ← β₁V + (1 - β₁) g; G ← β₂G + (1 - β₂) g ⊙ g;
    W ← W - lr (μₖ₊₁ V / (1 - Πₖ₊₁) + (1 - μₖ) g / (1 - Πₖ)) / (√(G / (1 - β₂ᵏ)) + ε).

    Args:
        parameters: those that are trained.
        lr, betas, eps: as for Adam.
        momentum_decay: ψ.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float, momentum_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "momentum_decay": momentum_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            # One count for the group, where the host can read it without waiting: k, and the product of the μ so far.
            first = self.state[group["params"][0]]
            first["step"] = torch.zeros((), dtype=torch.float64)
            first["mu_product"] = torch.ones((), dtype=torch.float64)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            weights = group["params"]
            gradients = [weight.grad for weight in weights]
            momenta = [self.state[weight]["exp_avg"] for weight in weights]
            beta1, beta2 = group["betas"]
            k, of_momentum, of_gradient = self._factors(weights[0], beta1, group["momentum_decay"])
            # Adam's kernel with a share that makes M = of_momentum V + of_gradient g of the old V, up to a factor. Then
            # V is where the line from M to g comes to when it goes on beyond M.
            factor = of_momentum + of_gradient
            share = beta1 * of_momentum / factor
            torch._fused_adam_(
                weights,
                gradients,
                momenta,
                [self.state[weight]["exp_avg_sq"] for weight in weights],
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

    def _factors(self, first: Tensor, beta1: float, decay: float) -> tuple[float, float, float]:
        """k of this step, and what V and g are multiplied by in it."""
        step, product = self.state[first]["step"], self.state[first]["mu_product"]
        step += 1
        k = step.item()
        mu, next_mu = (beta1 * (1 - 0.5 * 0.96 ** (number * decay)) for number in (k, k + 1))
        product *= mu
        so_far = product.item()
        return k, next_mu / (1 - so_far * next_mu), (1 - mu) / (1 - so_far)
