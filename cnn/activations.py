"""Activations: element-wise functions.

To add one: write its class, then name it in `Layer` at the bottom of `layers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn import base
from cnn.base import LayerCost, Shape

if TYPE_CHECKING:
    from torch import nn


class _Activation(base.Layer):
    """An element-wise function: the shape stays."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape)


class ReLU(_Activation):
    """max(0, x)."""

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


class Tanh(_Activation):
    """tanh(x)."""

    type: Literal["tanh"] = "tanh"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Tanh()


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    type: Literal["sigmoid"] = "sigmoid"

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Sigmoid()
