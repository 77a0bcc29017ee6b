"""Adam and its kin by torch's fused kernel, without what `torch.optim` does around it in every step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from cnn.native.updates import Rule
from cnn.optim.base import ElementWise, count_up


class Adam(ElementWise):
    """V ← β₁V + (1 - β₁) g; G ← β₂G + (1 - β₂) g ⊙ g; W ← W - μλW - μ Ṽ / (√G̃ + ε) (Kingma & Ba, ICLR 2015).

    Ṽ = V / (1 - β₁ᵏ), G̃ = G / (1 - β₂ᵏ).

    Args:
        parameters: those that are trained.
        lr, betas, eps: μ, β₁ and β₂, ε.
        weight_decay: λ.
    """

    rule = Rule.ADAM
    states: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for parameter, state in self.state.items():
            state["step"] = torch.zeros((), device=parameter.device)

    def _steps(self, weights: Sequence[Tensor]) -> list[Tensor]:
        return [self.state[weight]["step"] for weight in weights]

    def count(self, group: dict[str, Any]) -> None:
        count_up(self._steps(group["params"]))

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        k = self.state[group["params"][0]]["step"].item()
        lr, (beta1, beta2) = group["lr"], group["betas"]
        root = (1 - beta2**k) ** -0.5
        decay = lr * group["weight_decay"]
        return decay, lr / (1 - beta1**k), beta1, 1 - beta1, beta2, 1 - beta2, root, group["eps"]

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        momenta, squares, *largest = states
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            weights,
            gradients,
            momenta,
            squares,
            largest[0] if largest else [],
            self._steps(weights),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=bool(largest),
            maximize=False,
            found_inf=self.found_inf,
        )


class AMSGrad(Adam):
    """Adam in whose G̃ the largest G so far takes the place of G (Reddi, Kale & Kumar, ICLR 2018)."""

    rule = Rule.AMSGRAD
    states = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
