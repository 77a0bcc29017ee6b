"""Adam and its kin by torch's fused kernel, without what `torch.optim` does around it in every step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cnn.optim.base import Optimizer


class Adam(Optimizer):
    """V ← β₁V + (1 - β₁) g; G ← β₂G + (1 - β₂) g ⊙ g; W ← W - μλW - μ Ṽ / (√G̃ + ε) (Kingma & Ba, ICLR 2015).

    Ṽ = V / (1 - β₁ᵏ), G̃ = G / (1 - β₂ᵏ); with `amsgrad`, the largest G so far takes G's place in the last.

    Args:
        parameters: those that are trained.
        lr, betas, eps: μ, β₁ and β₂, ε.
        weight_decay: λ.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        *,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._amsgrad = amsgrad
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            state = self.state[parameter]
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            if amsgrad:
                state["max_exp_avg_sq"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            weights = group["params"]
            states = [self.state[weight] for weight in weights]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            beta1, beta2 = group["betas"]
            torch._fused_adamw_(
                weights,
                [weight.grad for weight in weights],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [state["max_exp_avg_sq"] for state in states] if self._amsgrad else [],
                steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=self._amsgrad,
                maximize=False,
                found_inf=self.found_inf,
            )
