"""RMSProp as the lecture has it. Torch's own has no fused kernel, and a slow loop."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cnn.optim.base import Optimizer


class RMSProp(Optimizer):
    """G ← γG + (1 - γ) g ⊙ g; W ← W - μ g / (√G + ε), with G = 0 before the first step (Hinton, 2012).

    Args:
        parameters: those that are trained.
        lr: μ.
        alpha: γ.
        eps: ε.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, alpha: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "alpha": alpha, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["square_avg"] = torch.zeros_like(parameter)
        self._forever = torch.full((), torch.inf, device=self.param_groups[0]["params"][0].device)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            gradients = [weight.grad for weight in group["params"]]
            # Adam whose first moment is the gradient (β₁ = 0) and whose bias is gone (k = ∞): one pass through memory.
            torch._fused_adam_(
                group["params"],
                gradients,
                gradients,
                [self.state[weight]["square_avg"] for weight in group["params"]],
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
