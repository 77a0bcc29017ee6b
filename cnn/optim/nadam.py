"""Nadam. Torch's own has no kernel that heeds the finite gate."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class NAdam(torch.optim.Optimizer):
    """Adam whose first moment looks ahead by Nesterov's rule (Dozat, ICLR workshop 2016).

    With μₖ = β₁ (1 - 0.5 · 0.96^(kψ)) and Πₖ = μ₁ ⋯ μₖ:
    V ← β₁V + (1 - β₁) g; G ← β₂G + (1 - β₂) g ⊙ g;
    W ← W - lr (μₖ₊₁ V / (1 - Πₖ₊₁) + (1 - μₖ) g / (1 - Πₖ)) / (√(G / (1 - β₂ᵏ)) + ε).

    Args:
        parameters: those that are trained, each with a gradient in every step.
        lr, betas, eps: as for Adam.
        momentum_decay: ψ.
    """

    found_inf: Tensor | None = None
    """Where it is 1 the weights stay, as in torch's fused optimizers."""

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
            torch._foreach_lerp_(momenta, gradients, 1 - beta1)
            # Adam's kernel from a copy of V whose own average makes of_momentum V + of_gradient g, up to a factor.
            share, factor = of_momentum / (of_momentum + of_gradient), of_momentum + of_gradient
            torch._fused_adam_(
                weights,
                gradients,
                [momentum.clone() for momentum in momenta],
                [self.state[weight]["exp_avg_sq"] for weight in weights],
                [],
                [torch.full((), k, device=weight.device) for weight in weights],
                lr=group["lr"] * factor * (1 - share**k),
                beta1=share,
                beta2=beta2,
                weight_decay=0.0,
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                found_inf=self.found_inf,
            )

    def _factors(self, first: Tensor, beta1: float, decay: float) -> tuple[float, float, float]:
        """k of this step, and what V and g are multiplied by in it."""
        step, product = self.state[first]["step"], self.state[first]["mu_product"]
        step += 1
        k = step.item()
        mu, next_mu = (beta1 * (1 - 0.5 * 0.96 ** (number * decay)) for number in (k, k + 1))
        product *= mu
        so_far = product.item()
        return k, next_mu / (1 - so_far * next_mu), (1 - mu) / (1 - so_far)
