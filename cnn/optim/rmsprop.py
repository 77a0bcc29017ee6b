"""RMSProp as the lecture has it. Torch's own has no fused kernel, and a slow loop."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class RMSProp(torch.optim.Optimizer):
    """G ← γG + (1 - γ) g ⊙ g; W ← W - μ g / (√G + ε), with G = 0 before the first step (Hinton, 2012).

    Args:
        parameters: those that are trained, each with a gradient in every step.
        lr: μ.
        alpha: γ.
        eps: ε.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, alpha: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "alpha": alpha, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["square_avg"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            gradients = [weight.grad for weight in group["params"]]
            averages = [self.state[weight]["square_avg"] for weight in group["params"]]
            torch._foreach_mul_(averages, group["alpha"])
            torch._foreach_addcmul_(averages, gradients, gradients, value=1 - group["alpha"])
            roots = torch._foreach_sqrt(averages)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_addcdiv_(group["params"], gradients, roots, value=-group["lr"])
