"""Normalization layers. To add one: write its class, then name it in `Layer` at the bottom of `layers.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.base import FLOAT_BYTES, Layer, LayerCost, Shape, ShapeError

if TYPE_CHECKING:
    from torch import nn

Epsilon = Annotated[float, Field(gt=0)]


def _grouped(shape: Shape, num_groups: int, affine: bool) -> LayerCost:
    """Normalization of each sample over groups of channels: mean and 1 / std of each group are kept."""
    num_parameters = 2 * shape[0] if affine else 0
    return LayerCost(shape, num_parameters, keeps_input=True, kept_bytes=2 * FLOAT_BYTES * num_groups)


class BatchNorm(Layer):
    """Normalizes each channel over the batch, then scales and shifts it (Ioffe & Szegedy, ICML 2015).

    While training: y = (x - mean_B) / sqrt(var_B + eps) · weight + bias; running statistics follow with `momentum`
    and are used at test. Works on images and on vectors.
    """

    type: Literal["batch_norm"] = "batch_norm"
    eps: Epsilon = 1e-5
    """Added to the variance."""
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of the newest batch in the running statistics: torch's convention, not Keras's."""
    affine: bool = True
    """Learn a weight and a bias per channel."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape, num_parameters=2 * shape[0] if self.affine else 0, keeps_input=True)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        module = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
        return module(shape[0], eps=self.eps, momentum=self.momentum, affine=self.affine)


class LayerNorm(Layer):
    """Normalizes each sample over all of its values (Ba, Kiros & Hinton, 2016), then scales and shifts each channel.

    y = (x - mean) / sqrt(var + eps) · weight_c + bias_c, mean and variance over channels and pixels: group
    normalization with one group. On vectors this is torch's LayerNorm; on images torch would learn a weight per pixel.
    """

    type: Literal["layer_norm"] = "layer_norm"
    eps: Epsilon = 1e-5
    """Added to the variance."""
    affine: bool = True
    """Learn a weight and a bias per channel."""

    def cost(self, shape: Shape) -> LayerCost:
        return _grouped(shape, 1, self.affine)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.GroupNorm(1, shape[0], eps=self.eps, affine=self.affine)


class GroupNorm(Layer):
    """Normalizes each sample over groups of channels (Wu & He, ECCV 2018), then scales and shifts each channel."""

    type: Literal["group_norm"] = "group_norm"
    num_groups: Annotated[int, Field(ge=1)]
    """Number of groups, which divides the number of channels."""
    eps: Epsilon = 1e-5
    """Added to the variance."""
    affine: bool = True
    """Learn a weight and a bias per channel."""

    def cost(self, shape: Shape) -> LayerCost:
        if shape[0] % self.num_groups:
            raise ShapeError(f"num_groups {self.num_groups} must divide the {shape[0]} channels")
        return _grouped(shape, self.num_groups, self.affine)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.GroupNorm(self.num_groups, shape[0], eps=self.eps, affine=self.affine)


class InstanceNorm(Layer):
    """Normalizes each channel of each image over its pixels (Ulyanov, Vedaldi & Lempitsky, 2016)."""

    type: Literal["instance_norm"] = "instance_norm"
    eps: Epsilon = 1e-5
    """Added to the variance."""
    affine: bool = False
    """Learn a weight and a bias per channel."""

    def cost(self, shape: Shape) -> LayerCost:
        channels, height, width = self.require_image(shape)
        if height * width == 1:
            raise ShapeError("expected more than one pixel per channel, got 1: every output would be 0")
        # Torch repeats the weights of the channels for each sample.
        kept_bytes = FLOAT_BYTES * channels * (3 if self.affine else 2)
        return LayerCost(shape, 2 * channels if self.affine else 0, keeps_input=True, kept_bytes=kept_bytes)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.InstanceNorm2d(shape[0], eps=self.eps, affine=self.affine)


class LocalResponseNorm(Layer):
    """Divides each value by the activity of `size` neighbouring channels (Krizhevsky, Sutskever & Hinton, 2012).

    y_c = x_c / (k + alpha / size · Σ x_i²)^beta, i over the neighbours of c. As in torch, alpha is divided by size.
    """

    type: Literal["local_response_norm"] = "local_response_norm"
    size: Annotated[int, Field(ge=1)] = 5
    """Number of neighbouring channels, itself included."""
    alpha: Annotated[float, Field(gt=0)] = 1e-4
    """Weight of the activity."""
    beta: Annotated[float, Field(gt=0)] = 0.75
    """Exponent."""
    k: Annotated[float, Field(gt=0)] = 1.0
    """Added to the activity."""

    def cost(self, shape: Shape) -> LayerCost:
        channels, height, width = self.require_image(shape)
        # The squares with their padding; the activity; its power.
        kept = ((channels + self.size - 1) + 2 * channels) * height * width
        return LayerCost(shape, keeps_input=True, kept_bytes=FLOAT_BYTES * kept)

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.deterministic import LocalResponseNorm as Module

        return Module(self.size, alpha=self.alpha, beta=self.beta, k=self.k)
