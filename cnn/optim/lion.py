"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cnn.optim.base import Optimizer


class Lion(Optimizer):
    """C = β₁V + (1 - β₁) g; W ← W - μ (sign C + λW); V ← β₂V + (1 - β₂) g (Chen et al., NeurIPS 2023).

    Args:
        parameters: those that are trained.
        lr: μ.
        betas: β₁ and β₂.
        weight_decay: λ.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            weights = group["params"]
            gradients = [weight.grad for weight in weights]
            momenta = [self.state[weight]["exp_avg"] for weight in weights]
            beta1, beta2 = group["betas"]
            signs = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(signs)
            if group["weight_decay"]:
                torch._foreach_add_(signs, weights, alpha=group["weight_decay"])
            if self.found_inf is not None:
                torch._foreach_mul_(signs, 1 - self.found_inf)
            torch._foreach_add_(weights, signs, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)
