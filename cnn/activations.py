"""Activations: element-wise functions.

To add one: write its class, then name it in `Layer` at the bottom of `layers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cnn import base
from cnn.base import LayerCost, Shape

if TYPE_CHECKING:
    from torch import nn


class _Activation(base.Layer):
    """An element-wise function: the shape stays. Its derivative comes from its input, or else from its output."""

    keeps_output: ClassVar[bool] = False

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape, keeps_input=not self.keeps_output, keeps_output=self.keeps_output)


class ReLU(_Activation):
    """max(0, x)."""

    keeps_output: ClassVar[bool] = True

    type: Literal["relu"] = "relu"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.ReLU()


class LeakyReLU(_Activation):
    """x where positive, negative_slope · x elsewhere."""

    type: Literal["leaky_relu"] = "leaky_relu"
    negative_slope: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Slope below zero."""

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.LeakyReLU(self.negative_slope)


class ELU(_Activation):
    """x where positive, alpha · (exp(x) - 1) elsewhere (Clevert, Unterthiner & Hochreiter, ICLR 2016)."""

    type: Literal["elu"] = "elu"
    alpha: Annotated[float, Field(gt=0)] = 1.0
    """Minus the value far below zero."""

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.ELU(self.alpha)


class GELU(_Activation):
    """x Φ(x), Φ the normal distribution function (Hendrycks & Gimpel, 2016)."""

    type: Literal["gelu"] = "gelu"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.GELU()


class SiLU(_Activation):
    """x · sigmoid(x), also called swish."""

    type: Literal["silu"] = "silu"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.SiLU()


class Hardswish(_Activation):
    """x · hardsigmoid(x), swish from straight pieces (Howard et al., ICCV 2019)."""

    type: Literal["hardswish"] = "hardswish"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Hardswish()


class Hardsigmoid(_Activation):
    """min(1, max(0, x / 6 + 1 / 2))."""

    type: Literal["hardsigmoid"] = "hardsigmoid"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Hardsigmoid()


class Tanh(_Activation):
    """tanh(x)."""

    keeps_output: ClassVar[bool] = True

    type: Literal["tanh"] = "tanh"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Tanh()


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    keeps_output: ClassVar[bool] = True

    type: Literal["sigmoid"] = "sigmoid"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Sigmoid()
