"""What the kinds of optimizers share. `optimizers.py` names them all.

Notation: μ is `lr`, g the gradient of the loss with all penalties, ⊙ element-wise, k = 1, 2, … the step; all state
starts at zero. The learning rate of a step comes from the schedule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cnn.base import Items, Spec

if TYPE_CHECKING:
    from torch import Tensor, optim

LearningRate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
Betas = Annotated[Items[Decay], Field(min_length=2, max_length=2)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]


class BaseOptimizer(Spec):
    """What the loop asks of an optimizer."""

    def build(self, parameters: Iterable[Tensor]) -> optim.Optimizer:
        raise NotImplementedError

    def build_for(self, matrices: Sequence[Tensor], others: Sequence[Tensor]) -> optim.Optimizer:
        """The optimizer of a network: of the weights of its convolutions and dense layers, and of all else in it."""
        return self.build([*matrices, *others])

    def gradient_point(self, optimizer: optim.Optimizer) -> AbstractContextManager[None]:
        """Where the parameters stand while the gradient is taken: for most optimizers, where they are."""
        return nullcontext()
