"""Optimizers that follow the gradient as it is. To add one: write its class, then name it in `GradientDescent` below.

The notation is that of `optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, cast

from cnn.optimizer import BaseOptimizer, Decay, LearningRate

if TYPE_CHECKING:
    from torch import Tensor, optim


class SGD(BaseOptimizer):
    """Stochastic gradient descent: W ← W - μ g (Robbins & Monro, 1951). The lecture's "SDG" is a misprint of it."""

    type: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.1
    """Learning rate μ."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        from cnn.optim.momentum import SGD

        return SGD(parameters, lr=self.lr)


class Momentum(BaseOptimizer):
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


class Nesterov(BaseOptimizer):
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


GradientDescent = SGD | Momentum | Nesterov
