"""Optimizers with a step size for every weight. To add one: write its class, then name it in `Adaptive` at the bottom.

The notation is that of `optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.optimizer import BaseOptimizer, Betas, Decay, Epsilon, LearningRate, WeightDecay

if TYPE_CHECKING:
    from torch import Tensor, optim


class AdaGrad(BaseOptimizer):
    """Adaptive gradient: G ← G + g ⊙ g; W ← W - μ g / (√G + ε) (Duchi, Hazan & Singer, JMLR 12, 2011).

    Weights with large gradients get small steps; the step falls with time and tends to zero.
    """

    type: Literal["adagrad"] = "adagrad"
    lr: LearningRate = 0.01
    """Learning rate μ."""
    eps: Epsilon = 1e-10
    """ε, for numerical stability."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.adagrad import AdaGrad

        return AdaGrad(parameters, lr=self.lr, eps=self.eps)


class RMSProp(BaseOptimizer):
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


class Adam(BaseOptimizer):
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
        from cnn.optim.adam import Adam

        beta1, beta2 = self.betas
        return Adam(parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps)


class AdamW(BaseOptimizer):
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
        from cnn.optim.adam import Adam

        beta1, beta2 = self.betas
        return Adam(parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps, weight_decay=self.weight_decay)


class AMSGrad(BaseOptimizer):
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
        from cnn.optim.adam import AMSGrad

        beta1, beta2 = self.betas
        return AMSGrad(parameters, lr=self.lr, betas=(beta1, beta2), eps=self.eps)


class NAdam(BaseOptimizer):
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


class Adadelta(BaseOptimizer):
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
        from cnn.optim.adadelta import Adadelta

        return Adadelta(parameters, lr=self.lr, rho=self.rho, eps=self.eps)


Adaptive = AdaGrad | RMSProp | Adam | AdamW | AMSGrad | NAdam | Adadelta
