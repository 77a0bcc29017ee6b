"""Regularizers. To add one: write its class, then name it in `Regularizer` at the bottom.

A penalty adds to the gradient of its weights before the step, a constraint projects them after it. Both act on the
weights of convolutions and dense layers, never on biases and never on the parameters of normalization layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Items, Spec

if TYPE_CHECKING:
    from torch import Tensor


class _Regularizer(Spec):
    layers: Annotated[Items[str], Field(min_length=1, max_length=1000)] | None = None
    """Names or patterns (`conv*`) of the layers whose weights it acts on; null for all that have weights."""

    @staticmethod
    def select(patterns: Sequence[str] | None, names: Sequence[str]) -> list[str]:
        """The layers among `names` that one of the patterns matches; without patterns, all."""
        if patterns is None:
            return list(names)
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]

    def value(self, weights: list[Tensor]) -> Tensor:
        """What it adds to the loss."""
        import torch

        return torch.zeros(())

    def add_gradient(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Add the gradient of `value` to `gradients`, in place."""

    def project(self, weights: list[Tensor]) -> None:
        """Bring the weights back to the set that the constraint allows, in place."""


class L2(_Regularizer):
    """J + (λ/2) ‖W‖²_F: the gradient gains λW.

    Under plain SGD this is weight decay. Under optimizers that rescale the gradient it is not the decoupled decay of
    AdamW: here the penalty's gradient is rescaled with the loss's.
    """

    type: Literal["l2"] = "l2"
    weight: Annotated[float, Field(gt=0)] = 5e-4
    """λ."""

    def value(self, weights: list[Tensor]) -> Tensor:
        import torch

        return 0.5 * self.weight * torch.stack(torch._foreach_norm(weights)).square().sum()

    def add_gradient(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        import torch

        torch._foreach_add_(gradients, weights, alpha=self.weight)


class L1(_Regularizer):
    """J + λ ‖W‖₁, λ times the sum of absolute values: the gradient gains λ sign(W), with sign(0) = 0.

    It drives weights to zero. The lecture's ‖W‖₁ is meant entry by entry, not as the norm of an operator.
    """

    type: Literal["l1"] = "l1"
    weight: Annotated[float, Field(gt=0)] = 1e-5
    """λ."""

    def value(self, weights: list[Tensor]) -> Tensor:
        import torch

        return self.weight * torch.stack(torch._foreach_norm(weights, 1)).sum()

    def add_gradient(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        import torch

        from cnn.native.library import used
        from cnn.native.updates import Layout, Rule

        library, layout = used(), Layout.of(weights)
        if library and layout and layout.is_that_of(gradients):
            library.updates.apply(Rule.L1, layout, [gradients, weights], [self.weight])
        else:
            torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=self.weight)


class MaxNorm(_Regularizer):
    """After each step, w ← w · min(1, c / ‖w‖₂) for the incoming weights w of every unit (Srebro & Shraibman, 2005).

    A unit is an output channel of a convolution or an output of a dense layer. The lecture pairs it with dropout.
    """

    type: Literal["max_norm"] = "max_norm"
    max_value: Annotated[float, Field(gt=0)] = 3.0
    """c: the largest norm that is allowed."""

    def project(self, weights: list[Tensor]) -> None:
        from torch.linalg import vector_norm

        from cnn.native.library import used
        from cnn.native.updates import Layout

        library, layout = used(), Layout.of(weights)
        if library and layout:
            library.updates.limit_norms(layout, weights, self.max_value)
            return
        for weight in weights:
            norm = vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
            weight.mul_((self.max_value / norm).clamp_(max=1))


Regularizer = TypeAliasType("Regularizer", Annotated[L1 | L2 | MaxNorm, Field(discriminator="type")])
