"""Muon: momentum whose matrices are made orthogonal. Torch's own takes no convolutions, and computes in bfloat16.

It cannot be as cheap as the other optimizers: for a matrix of m rows and n ≥ m columns it takes 4 m² n operations and
more in each step, where forward and backward take 6 m n for each image and each place where it is applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.linalg import vector_norm

from cnn.optim.base import Optimizer, subtract

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a x + b x³ + c x⁵, which sends singular values in (0, 1] to about 1 (0.7 to 1.2) in five rounds."""
NUM_ITERATIONS = 5
SMALLEST_NORM = 1e-7


class Muon(Optimizer):
    """V ← γV + (1 - γ) g; U = γV + (1 - γ) g; W ← W - μ (s · orthogonalized(U) + λW) (Jordan et al., 2024).

    The kernels of a convolution are a matrix with one row per output channel. s = √max(1, rows / columns).

    Args:
        parameters: tensors of two dimensions or more.
        lr: μ.
        momentum: γ.
        weight_decay: λ.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for group in self.param_groups:
            weights = group["params"]
            momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
            blended = torch._foreach_mul([weight.grad for weight in weights], 1 - group["momentum"])
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, blended)
            torch._foreach_add_(blended, momenta, alpha=group["momentum"])
            updates = [_direction(matrix) for matrix in blended]
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
            subtract(weights, updates, group["lr"], self.found_inf)


class Pair(Optimizer):
    """Two optimizers as one: `main` for its parameters, `partner` for the others.

    Groups and state of both are its own; the groups of `main` come first.
    """

    def __init__(self, main: torch.optim.Optimizer, partner: torch.optim.Optimizer) -> None:
        super().__init__([*main.param_groups, *partner.param_groups], {})
        self.state.update(main.state)
        self.state.update(partner.state)
        self.main, self.partner = main, partner
        main.state = partner.state = self.state

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without closure: the loss is evaluated once per step
        for part in (self.main, self.partner):
            part.found_inf = self.found_inf  # type: ignore[attr-defined]
            part.step()


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U Vᵀ of the singular value decomposition U S Vᵀ, by five rounds of Newton and Schulz's iteration.

    A round multiplies X by P = a + bA + cA², A = XXᵀ. The rounds are taken on A and on the product of the P, which have
    the shorter side of X: of the products with the long side, which make up the cost, two are left instead of ten.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.mT if is_tall else matrix
    x = x / (vector_norm(x) + SMALLEST_NORM)
    gram = x @ x.mT
    product = factor = _factor(gram)
    for _ in range(NUM_ITERATIONS - 1):
        # All factors are polynomials of one symmetric matrix: they commute, and the Gram matrix of P X is P A P.
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    x = product @ x
    return x.mT if is_tall else x


def _factor(gram: Tensor) -> Tensor:
    """a + bA + cA² of the Gram matrix A."""
    a, b, c = COEFFICIENTS
    factor = torch.addmm(b * gram, gram, gram, alpha=c)
    factor.diagonal().add_(a)
    return factor


def _direction(update: Tensor) -> Tensor:
    """s · orthogonalized(update), with the strides of `update`."""
    matrix = update.flatten(1)
    scale = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
    return torch.empty_like(update).copy_((scale * orthogonalized(matrix)).view(update.shape))
