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
            # One count for the group, on the device: k, and the product of the μ so far.
            first = self.state[group["params"][0]]
            first["step"] = torch.zeros((), dtype=torch.float64, device=group["params"][0].device)
            first["mu_product"] = torch.ones_like(first["step"])

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            weights = group["params"]
            gradients = [weight.grad for weight in weights]
            momenta = [self.state[weight]["exp_avg"] for weight in weights]
            squares = [self.state[weight]["exp_avg_sq"] for weight in weights]
            beta1, beta2 = group["betas"]
            torch._foreach_mul_(momenta, beta1)
            torch._foreach_add_(momenta, gradients, alpha=1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
            of_momentum, of_gradient, of_square = self._factors(weights[0], beta1, beta2, group["momentum_decay"])
            roots = torch._foreach_mul(squares, of_square)
            torch._foreach_sqrt_(roots)
            torch._foreach_add_(roots, group["eps"])
            updates = torch._foreach_mul(momenta, of_momentum)
            torch._foreach_add_(updates, torch._foreach_mul(gradients, of_gradient))
            torch._foreach_addcdiv_(weights, updates, roots, value=-group["lr"])

    def _factors(self, first: Tensor, beta1: float, beta2: float, decay: float) -> tuple[Tensor, Tensor, Tensor]:
        """What V, g and G are multiplied by in this step; takes it into the counts."""
        k, product = self.state[first]["step"], self.state[first]["mu_product"]
        k += 1
        mu, next_mu = (beta1 * (1 - 0.5 * 0.96 ** (number * decay)) for number in (k, k + 1))
        product *= mu
        alive = 1 if self.found_inf is None else 1 - self.found_inf.double()
        return alive * next_mu / (1 - product * next_mu), alive * (1 - mu) / (1 - product), 1 / (1 - beta2**k)
