"""Layers. To add one: write its class, then name it in `Layer` at the bottom.

Others are in `activations.py`, `dropout.py`, `normalization_layers.py` and `whitening.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypeAliasType

from cnn import base
from cnn.activations import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from cnn.base import Items, LayerCost, Shape, ShapeError, spec_error, with_names
from cnn.dropout import DropBlock, Dropout, SpatialDropout, StochasticDepth
from cnn.normalization_layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm
from cnn.whitening import WhiteningConv2d

if TYPE_CHECKING:
    from torch import nn

KernelSize = Annotated[int, Field(ge=1, le=255)]
Stride = Annotated[int, Field(ge=1, le=255)]
Padding = Annotated[int, Field(ge=0, le=255)]
Width = Annotated[int, Field(ge=1, le=65536)]


def _window(size: int, kernel_size: int, stride: int, padding: int, dilation: int = 1) -> int:
    """How many positions a window takes along one side; torch's rounding (down)."""
    extent = dilation * (kernel_size - 1) + 1
    if extent > size + 2 * padding:
        raise ShapeError(f"its kernel covers {extent} pixels, but only {size} + 2 x {padding} (padding) reach it")
    return (size + 2 * padding - extent) // stride + 1


class Conv2d(base.Layer):
    """Cross-correlation with `out_channels` filters over a (channels, height, width) image, plus a bias."""

    has_weight: ClassVar[bool] = True

    type: Literal["conv2d"] = "conv2d"
    out_channels: Width
    """Number of filters."""
    kernel_size: KernelSize
    """Side of the square filters, in pixels."""
    stride: Stride = 1
    """Step of the filters, in pixels."""
    padding: Literal["same", "valid"] | Padding = "valid"
    """Zeros around the image: pixels per side, `valid` for none, `same` to keep the size (odd kernel, stride 1)."""
    dilation: Annotated[int, Field(ge=1, le=255)] = 1
    """Distance between the taps of a filter, in pixels."""
    groups: Width = 1
    """Number of blocks in which input and output channels are divided; each output sees its own block alone."""
    bias: bool = True
    """Learn a bias per filter. Useless before batch norm."""

    def cost(self, shape: Shape) -> LayerCost:
        channels, height, width = self.require_image(shape)
        if channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(f"groups {self.groups} must divide the {channels} channels in and {self.out_channels} out")
        if self.padding == "same":
            if self.stride != 1:
                raise ShapeError(f'padding "same" needs stride 1, got stride {self.stride}')
            if self.dilation * (self.kernel_size - 1) % 2:
                raise ShapeError(
                    f'padding "same" needs an odd kernel, got {self.kernel_size}: give the padding in pixels'
                )
        else:
            padding = 0 if self.padding == "valid" else self.padding
            height = _window(height, self.kernel_size, self.stride, padding, self.dilation)
            width = _window(width, self.kernel_size, self.stride, padding, self.dilation)
        weights = self.out_channels * (channels // self.groups) * self.kernel_size**2
        biases = self.out_channels if self.bias else 0
        return LayerCost((self.out_channels, height, width), weights + biases, weights * height * width)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Conv2d(
            shape[0],
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias,
        )


class MaxPool2d(base.Layer):
    """The largest value of each window."""

    type: Literal["max_pool2d"] = "max_pool2d"
    kernel_size: KernelSize
    """Side of the square window, in pixels."""
    stride: Stride | None = None
    """Step of the window, in pixels; by default its side."""
    padding: Padding = 0
    """Pixels of minus infinity around the image, at most half the window."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(_pooled(self, shape))

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.MaxPool2d(self.kernel_size, self.stride, self.padding)


class AvgPool2d(base.Layer):
    """The mean of each window; padded zeros count, as in torch."""

    type: Literal["avg_pool2d"] = "avg_pool2d"
    kernel_size: KernelSize
    """Side of the square window, in pixels."""
    stride: Stride | None = None
    """Step of the window, in pixels; by default its side."""
    padding: Padding = 0
    """Pixels of zeros around the image, at most half the window."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(_pooled(self, shape))

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.AvgPool2d(self.kernel_size, self.stride, self.padding)


def _pooled(layer: MaxPool2d | AvgPool2d, shape: Shape) -> Shape:
    channels, height, width = layer.require_image(shape)
    if 2 * layer.padding > layer.kernel_size:
        raise ShapeError(f"padding may be at most half the window of {layer.kernel_size}, got {layer.padding}")
    stride = layer.stride or layer.kernel_size
    return (
        channels,
        _window(height, layer.kernel_size, stride, layer.padding),
        _window(width, layer.kernel_size, stride, layer.padding),
    )


class GlobalAvgPool2d(base.Layer):
    """The mean of each channel: an image becomes a vector of its channels."""

    type: Literal["global_avg_pool2d"] = "global_avg_pool2d"

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost((self.require_image(shape)[0],))

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class GlobalMaxPool2d(base.Layer):
    """The largest value of each channel: an image becomes a vector of its channels."""

    type: Literal["global_max_pool2d"] = "global_max_pool2d"

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost((self.require_image(shape)[0],))

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())


class Flatten(base.Layer):
    """An image becomes the vector of its channels × height × width values, channels first."""

    type: Literal["flatten"] = "flatten"

    def cost(self, shape: Shape) -> LayerCost:
        self.require_image(shape)
        return LayerCost((math.prod(shape),))

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Flatten()


class Linear(base.Layer):
    """A dense layer: y = W x + b."""

    has_weight: ClassVar[bool] = True

    type: Literal["linear"] = "linear"
    out_features: Width
    """Number of outputs; of the last layer, the number of classes."""
    bias: bool = True
    """Learn a bias per output."""

    def cost(self, shape: Shape) -> LayerCost:
        weights = self.require_vector(shape) * self.out_features
        return LayerCost((self.out_features,), weights + (self.out_features if self.bias else 0), weights)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Linear(shape[0], self.out_features, bias=self.bias)


MAX_DEPTH = 4
"""Of residual blocks in residual blocks: what walks through them doubles its work with every level."""


class Residual(base.Layer):
    """layers(x) + shortcut(x): the layers learn what to add to their input (He et al., CVPR 2016).

    Without a shortcut the input itself is added. Its layers are called `<name>.<layer>`, those of the shortcut
    `<name>.shortcut.<layer>`.
    """

    type: Literal["residual"] = "residual"
    layers: Annotated[Items[Layer], Field(min_length=1, max_length=1000), AfterValidator(with_names)]
    """The branch, in the order in which its layers are applied."""
    shortcut: Annotated[Items[Layer], Field(max_length=1000), AfterValidator(with_names)] = ()
    """The other way, such as a 1 × 1 convolution where the shape changes."""

    def branches(self) -> tuple[base.Branch, ...]:
        return (base.Branch("layers", "", self.layers), base.Branch("shortcut", "shortcut.", self.shortcut))

    @model_validator(mode="after")
    def _limit_depth(self) -> Self:
        if _depth(self) > MAX_DEPTH:
            raise spec_error("nested_too_deep", "", f"residual blocks may be nested {MAX_DEPTH} deep, not deeper")
        return self

    def cost(self, shape: Shape) -> LayerCost:
        branch, shortcut = shape_after(self.layers, shape), shape_after(self.shortcut, shape)
        if branch != shortcut:
            raise ShapeError(
                f"its layers give {branch}, but its shortcut gives {shortcut}: they must be the same to add"
            )
        return LayerCost(branch)

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.residual import Residual as Module

        return Module(build_layers(self.layers, shape), build_layers(self.shortcut, shape))


Layer = TypeAliasType(
    "Layer",
    Annotated[
        Conv2d
        | WhiteningConv2d
        | MaxPool2d
        | AvgPool2d
        | GlobalAvgPool2d
        | GlobalMaxPool2d
        | Flatten
        | Linear
        | ReLU
        | LeakyReLU
        | GELU
        | SiLU
        | Tanh
        | Sigmoid
        | BatchNorm
        | LayerNorm
        | GroupNorm
        | InstanceNorm
        | LocalResponseNorm
        | Dropout
        | SpatialDropout
        | StochasticDepth
        | DropBlock
        | Residual,
        Field(discriminator="type"),
    ],
)


def _depth(block: Residual) -> int:
    inner = (layer for branch in block.branches() for layer in branch.layers)
    return 1 + max((_depth(layer) for layer in inner if isinstance(layer, Residual)), default=0)


def shape_after(layers: Sequence[base.Layer], shape: Shape) -> Shape:
    """The shape that samples of `shape` have behind `layers`. Raises ShapeError."""
    for layer in layers:
        shape = layer.cost(shape).shape
    return shape


def build_layers(layers: Sequence[base.Layer], shape: Shape) -> nn.Sequential:
    """The torch modules of named layers for samples of `shape`, each a child under its name."""
    from torch import nn

    modules = nn.Sequential()
    for layer in layers:
        modules.add_module(str(layer.name), layer.build(shape))
        shape = layer.cost(shape).shape
    return modules


Residual.model_rebuild()
