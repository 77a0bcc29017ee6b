"""Optimizers. To add one: write its class, then name it in `_Whole` near the bottom.

Notation: μ is `lr`, g the gradient of the loss with all penalties, ⊙ element-wise, k = 1, 2, … the step; all state
starts at zero. The learning rate of a step comes from the schedule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
Betas = Annotated[Items[Decay], Field(min_length=2, max_length=2)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]


class _Optimizer(Spec):
    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        raise NotImplementedError

    def build_for(self, matrices: Sequence[Tensor], others: Sequence[Tensor]) -> optim.Optimizer:
        """The optimizer of a network: of the weights of its convolutions and dense layers, and of all else in it."""
        return self.build([*matrices, *others])

    def gradient_point(self, optimizer: optim.Optimizer) -> AbstractContextManager[None]:
        """Where the parameters stand while the gradient is taken: for most optimizers, where they are."""
        return nullcontext()


class SGD(_Optimizer):
    """Stochastic gradient descent: W ← W - μ g (Robbins & Monro, 1951). The lecture's "SDG" is a misprint of it."""

    type: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.1
    """Learning rate μ."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        return optim.SGD(parameters, lr=self.lr, fused=True)


class Momentum(_Optimizer):
    """Classical momentum: V ← γV - μ g(W); W ← W + V (Polyak, 1964).

    The lecture's sum of all past gradients, each with the power of γ of its age, says the same as W + V.
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
    betas: Betas = (0.9, 0.999)
    """β₁ and β₂: the shares of the two moments that stay from step to step."""
    eps: Epsilon = 1e-8
    """ε, for numerical stability."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        beta1, beta2 = self.betas
        return optim.Adam(parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps, fused=True)


class AdamW(_Optimizer):
    """Adam with decoupled weight decay: W ← W - μλW - μ Ṽ / (√G̃ + ε) (Loshchilov & Hutter, ICLR 2019).

    Ṽ and G̃ are Adam's. The decay is not rescaled by √G̃ as the gradient of an `l2` penalty is, and it acts on every
    trained parameter, biases and those of normalization layers included.
    """

    type: Literal["adamw"] = "adamw"
    lr: LearningRate = 0.001
    """Learning rate μ."""
    betas: Betas = (0.9, 0.999)
    """β₁ and β₂: the shares of the two moments that stay from step to step."""
    eps: Epsilon = 1e-8
    """ε, for numerical stability."""
    weight_decay: WeightDecay = 0.01
    """λ: the share of the weights that a step with μ = 1 would take away."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        beta1, beta2 = self.betas
        return optim.AdamW(
            parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps, weight_decay=self.weight_decay, fused=True
        )


class AMSGrad(_Optimizer):
    """Adam with a second moment that never falls (Reddi, Kale & Kumar, ICLR 2018).

    V and G as Adam's; H ← max(H, G); W ← W - μ Ṽ / (√H̃ + ε) with Ṽ = V / (1 - β₁ᵏ) and H̃ = H / (1 - β₂ᵏ).

    The paper leaves out the two corrections for simplicity; they are here, as in torch.
    """

    type: Literal["amsgrad"] = "amsgrad"
    lr: LearningRate = 0.001
    """Learning rate μ."""
    betas: Betas = (0.9, 0.999)
    """β₁ and β₂: the shares of the two moments that stay from step to step."""
    eps: Epsilon = 1e-8
    """ε, for numerical stability."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        beta1, beta2 = self.betas
        return optim.Adam(parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps, amsgrad=True, fused=True)


class NAdam(_Optimizer):
    """Adam with Nesterov's look-ahead in the first moment (Dozat, ICLR workshop 2016).

    With mₖ = β₁ (1 - 0.5 · 0.96^(kψ)) and Πₖ = m₁ ⋯ mₖ, and V and G as Adam's:
    W ← W - μ (mₖ₊₁ V / (1 - Πₖ₊₁) + (1 - mₖ) g / (1 - Πₖ)) / (√(G / (1 - β₂ᵏ)) + ε).

    The gradient is taken at W itself: the look-ahead is in the formula, unlike `nesterov`'s.
    """

    type: Literal["nadam"] = "nadam"
    lr: LearningRate = 0.002
    """Learning rate μ."""
    betas: Betas = (0.9, 0.999)
    """β₁ and β₂: the shares of the two moments that stay from step to step."""
    eps: Epsilon = 1e-8
    """ε, for numerical stability."""
    momentum_decay: Annotated[float, Field(ge=0, le=1)] = 0.004
    """ψ: how fast m rises from β₁/2 to β₁."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.nadam import NAdam

        beta1, beta2 = self.betas
        return NAdam(parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps, momentum_decay=self.momentum_decay)


class Adadelta(_Optimizer):
    """Steps in the units of the weights (Zeiler, 2012).

    G ← ρG + (1 - ρ) g ⊙ g; Δ = √(D + ε) / √(G + ε) ⊙ g; D ← ρD + (1 - ρ) Δ ⊙ Δ; W ← W - μΔ.

    The paper has μ = 1.
    """

    type: Literal["adadelta"] = "adadelta"
    lr: LearningRate = 1.0
    """Learning rate μ."""
    rho: Decay = 0.9
    """ρ: the share of the two mean squares that stays from step to step."""
    eps: Epsilon = 1e-6
    """ε: it also decides how large the first steps are."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from torch import optim

        return optim.Adadelta(parameters, lr=self.lr, rho=self.rho, eps=self.eps, foreach=True)


class Lion(_Optimizer):
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


_Whole = (
    SGD | Momentum | Nesterov | AdaGrad | RMSProp | Adam | AdamW | AMSGrad | NAdam | Adadelta | Lion
)  # of a whole network, unlike Muon

PartnerOptimizer = TypeAliasType("PartnerOptimizer", Annotated[_Whole, Field(discriminator="type")])


class Muon(_Optimizer):
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
