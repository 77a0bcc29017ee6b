"""AdaGrad by torch's fused kernel, without what `torch.optim` does around it in every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cnn.native.updates import Rule
from cnn.optim.base import ElementWise


class AdaGrad(ElementWise):
    """G ← G + g ⊙ g; W ← W - μ g / (√G + ε), with G = 0 before the first step (Duchi et al., JMLR 12, 2011).

    Args:
        parameters: those that are trained.
        lr: μ.
        eps: ε.
    """

    rule = Rule.ADAGRAD
    states = ("sum",)

    def __init__(self, parameters: Iterable[Tensor], lr: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "eps": eps})

    def coefficients(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["lr"], group["eps"]

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], *states: list[Tensor]
    ) -> None:
        first = torch.ones((), device=weights[0].device)  # the kernel reads the step for a decay that is 0 here
        torch._fused_adagrad_(
            weights,
            gradients,
            states[0],
            [first] * len(weights),
            lr=group["lr"],
            lr_decay=0.0,
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
            found_inf=self.found_inf,
        )
