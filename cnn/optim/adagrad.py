"""AdaGrad by torch's fused kernel, without what `torch.optim` does around it in every step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cnn.optim.base import Optimizer


class AdaGrad(Optimizer):
    """G ← G + g ⊙ g; W ← W - μ g / (√G + ε), with G = 0 before the first step (Duchi et al., JMLR 12, 2011).

    Args:
        parameters: those that are trained.
        lr: μ.
        eps: ε.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["sum"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            weights = group["params"]
            first = torch.ones((), device=weights[0].device)  # the kernel reads the step for a decay that is 0 here
            torch._fused_adagrad_(
                weights,
                [weight.grad for weight in weights],
                [self.state[weight]["sum"] for weight in weights],
                [first] * len(weights),
                lr=group["lr"],
                lr_decay=0.0,
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
                found_inf=self.found_inf,
            )
