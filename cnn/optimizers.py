"""Optimizers. To add one: write its class, then name it in `Optimizer` at the bottom.

Notation: μ is `lr`, g the gradient of the loss with all penalties, ⊙ element-wise, k = 1, 2, … the step; all state
starts at zero. The learning rate of a step comes from the schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Items, Spec

if TYPE_CHECKING:
    from torch import Tensor, optim

LearningRate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, le=1)]


class _Optimizer(Spec):
    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        raise NotImplementedError

    def gradient_point(self, optimizer: optim.Optimizer) -> AbstractContextManager[None]:
        """Where the parameters stand while the gradient is taken: for most optimizers, where they are."""
        return nullcontext()


class SGD(_Optimizer):
    """Stochastic gradient descent: W ← W - μ g (Robbins & Monro, 1951)."""

    type: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.1
    """Learning rate μ."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        return optim.SGD(parameters, lr=self.lr, fused=True)


class Momentum(_Optimizer):
    """Classical momentum: V ← γV - μ g(W); W ← W + V (Polyak, 1964).

    The learning rate is inside the velocity V: what a step put there keeps the learning rate of that step. Torch's SGD
    multiplies the whole velocity by the current one, which is the same only while the learning rate is constant.
    """

    type: Literal["momentum"] = "momentum"
    lr: LearningRate = 0.05
    """Learning rate μ."""
    momentum: Decay = 0.9
    """γ: the share of the velocity that stays from step to step."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.momentum import Momentum

        return Momentum(parameters, lr=self.lr, momentum=self.momentum)


class Nesterov(_Optimizer):
    """Nesterov's accelerated gradient: W̃ = W + γV; V ← γV - μ g(W̃); W ← W + V (Nesterov, 1983; Sutskever et al., 2013).

    The gradient, penalties included, is taken at the look-ahead point W̃; what is evaluated, averaged, saved and
    delivered is W. Max-norm projects W and leaves V. The running statistics of batch normalization come from the
    passes at W̃. The lecture prints W̃ₖ = Wₖ₋₁ + Vₖ₋₁, which is Wₖ itself: its gradient would not look ahead.
    """

    type: Literal["nesterov"] = "nesterov"
    lr: LearningRate = 0.05
    """Learning rate μ."""
    momentum: Decay = 0.9
    """γ: the share of the velocity that stays from step to step."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.momentum import Nesterov

        return Nesterov(parameters, lr=self.lr, momentum=self.momentum)

    def gradient_point(self, optimizer: optim.Optimizer) -> AbstractContextManager[None]:
        from cnn.optim import momentum

        return cast("momentum.Nesterov", optimizer).lookahead()


class AdaGrad(_Optimizer):
    """Adaptive gradient: G ← G + g ⊙ g; W ← W - μ g / (√G + ε) (Duchi, Hazan & Singer, JMLR 12, 2011).

    Weights with large gradients get small steps; the step falls with time and tends to zero.
    """

    type: Literal["adagrad"] = "adagrad"
    lr: LearningRate = 0.01
    """Learning rate μ."""
    eps: Epsilon = 1e-10
    """ε, for numerical stability."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        return optim.Adagrad(parameters, lr=self.lr, eps=self.eps, fused=True)


class RMSProp(_Optimizer):
    """Root mean square propagation: G ← γG + (1 - γ) g ⊙ g; W ← W - μ g / (√G + ε) (Hinton, 2012).

    The lecture says that γ = 1 forgets the past and that γ = 0 is AdaGrad. It is the other way round: γ = 1 would never
    take in the present, and γ = 0 keeps only the present, which is the element-wise step μ g / (|g| + ε).
    """

    type: Literal["rmsprop"] = "rmsprop"
    lr: LearningRate = 0.001
    """Learning rate μ."""
    alpha: Decay = 0.9
    """γ: the share of the mean square that stays from step to step."""
    eps: Epsilon = 1e-8
    """ε, for numerical stability."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.rmsprop import RMSProp

        return RMSProp(parameters, lr=self.lr, alpha=self.alpha, eps=self.eps)


class Adam(_Optimizer):
    """Adaptive moment estimation (Kingma & Ba, ICLR 2015).

    V ← β₁V + (1 - β₁) g; G ← β₂G + (1 - β₂) g ⊙ g; Ṽ = V / (1 - β₁ᵏ); G̃ = G / (1 - β₂ᵏ); W ← W - μ Ṽ / (√G̃ + ε).

    The lecture prints V with -(1 - β₁) g, which would climb, and updates with V and G where it needs the corrected
    Ṽ and G̃; the first step is k = 1, for k = 0 would divide by zero.
    """

    type: Literal["adam"] = "adam"
    lr: LearningRate = 0.001
    """Learning rate μ."""
    betas: Annotated[Items[Decay], Field(min_length=2, max_length=2)] = (0.9, 0.999)
    """β₁ and β₂: the shares of the two moments that stay from step to step."""
    eps: Epsilon = 1e-8
    """ε, for numerical stability."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        beta1, beta2 = self.betas
        return optim.Adam(parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps, fused=True)


Optimizer = TypeAliasType(
    "Optimizer", Annotated[SGD | Momentum | Nesterov | AdaGrad | RMSProp | Adam, Field(discriminator="type")]
)
