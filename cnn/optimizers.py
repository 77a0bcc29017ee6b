"""All optimizers. To add one: write its class in the file of its kind, then name it in the union of its kind there.

Kinds: `gradient_descent.py`, `adaptive_optimizers.py`, and here those of which the sign or the direction counts. What
they share, and the notation, is in `optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.adaptive_optimizers import AdamW, Adaptive
from cnn.gradient_descent import GradientDescent
from cnn.optimizer import BaseOptimizer, Betas, Decay, LearningRate, WeightDecay

if TYPE_CHECKING:
    from torch import Tensor, optim


class Lion(BaseOptimizer):
    """Evolved sign momentum (Chen et al., NeurIPS 2023).

    C = β₁V + (1 - β₁) g; W ← W - μ (sign C + λW); V ← β₂V + (1 - β₂) g.

    Every weight moves by μ in every step, so that μ is some three to ten times smaller than Adam's.
    """

    type: Literal["lion"] = "lion"
    lr: LearningRate = 1e-4
    """Learning rate μ."""
    betas: Betas = (0.9, 0.99)
    """β₁, the share of V in the sign, and β₂, the share of V that stays from step to step."""
    weight_decay: WeightDecay = 0.0
    """λ: decoupled weight decay of every trained parameter, as AdamW's."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.lion import Lion

        beta1, beta2 = self.betas
        return Lion(parameters, lr=self.lr, betas=(beta1, beta2), weight_decay=self.weight_decay)


_Whole = GradientDescent | Adaptive | Lion  # of a whole network, unlike Muon

PartnerOptimizer = TypeAliasType("PartnerOptimizer", Annotated[_Whole, Field(discriminator="type")])


class Muon(BaseOptimizer):
    """Momentum orthogonalized by Newton and Schulz's iteration (Jordan et al., 2024).

    V ← γV + (1 - γ) g; U = γV + (1 - γ) g; W ← W - μ (s NS(U) + λW).

    It is for the weights of convolutions, as matrices of one row per output channel, and of dense layers. Biases and
    the parameters of normalization layers go to the `partner`. NS is five rounds of X ← aX + (bA + cA²)X, A = XXᵀ, from
    X = U / ‖U‖_F, with (a, b, c) = (3.4445, -4.7750, 2.0315): about U's nearest matrix with orthonormal rows or
    columns. s = √max(1, rows / columns), as in the first implementation.
    """

    type: Literal["muon"] = "muon"
    lr: LearningRate = 0.02
    """Learning rate μ."""
    momentum: Decay = 0.95
    """γ: the share of the velocity that stays from step to step."""
    weight_decay: WeightDecay = 0.0
    """λ: decoupled weight decay of the matrices."""
    partner: PartnerOptimizer = AdamW()
    """What trains all other parameters, with an `lr` of its own. The schedule scales both alike."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.muon import Muon

        return Muon(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def build_for(self, matrices: Sequence[Tensor], others: Sequence[Tensor]) -> optim.Optimizer:
        from cnn.optim.muon import Pair

        if not matrices:
            return self.partner.build(others)
        return Pair(self.build(matrices), self.partner.build(others)) if others else self.build(matrices)

    def gradient_point(self, optimizer: optim.Optimizer) -> AbstractContextManager[None]:
        from cnn.optim.muon import Pair

        return self.partner.gradient_point(optimizer.partner) if isinstance(optimizer, Pair) else nullcontext()


Optimizer = TypeAliasType("Optimizer", Annotated[_Whole | Muon, Field(discriminator="type")])
