"""Layers. To add one: write its class, then name it in `Layer` at the bottom.

Others are in `activations.py`, `dropout.py`, `normalization_layers.py`, `pooling.py` and `whitening.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypeAliasType

from cnn import base
from cnn.activations import ELU, GELU, Hardsigmoid, Hardswish, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from cnn.base import Items, LayerCost, Shape, ShapeError, spec_error, with_names
from cnn.dropout import DropBlock, Dropout, SpatialDropout, StochasticDepth
from cnn.normalization_layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm
from cnn.plan import Node
from cnn.pooling import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    KernelSize,
    MaxPool2d,
    Padding,
    Stride,
    window,
)
from cnn.whitening import WhiteningConv2d

if TYPE_CHECKING:
    from torch import nn

Width = Annotated[int, Field(ge=1, le=65536)]


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
            height = window(height, self.kernel_size, self.stride, padding, self.dilation)
            width = window(width, self.kernel_size, self.stride, padding, self.dilation)
        weights = self.out_channels * (channels // self.groups) * self.kernel_size**2
        biases = self.out_channels if self.bias else 0
        macs = weights * height * width
        return LayerCost((self.out_channels, height, width), weights + biases, macs, keeps_input=True)

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


class Flatten(base.Layer):
    """An image becomes the vector of its channels × height × width values, channels first."""

    type: Literal["flatten"] = "flatten"

    def cost(self, shape: Shape) -> LayerCost:
        self.require_image(shape)
        return LayerCost((math.prod(shape),), is_view=True)

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
        biases = self.out_features if self.bias else 0
        return LayerCost((self.out_features,), weights + biases, weights, keeps_input=True)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Linear(shape[0], self.out_features, bias=self.bias)


class WeightNorm(base.Layer):
    """A convolution or dense layer with its weights' length and direction apart (Salimans & Kingma, NeurIPS 2016).

    w = g · v / ‖v‖₂ for the incoming weights w of each output channel or output; g and v are what is learned, and begin
    so that w is what the layer itself begins with. In `model.safetensors` they are
    `<name>.parametrizations.weight.original0` (g) and `.original1` (v). Penalties and max-norm do not act on it: the
    length of v is without effect, and that of w is one number g that is learned.
    """

    type: Literal["weight_norm"] = "weight_norm"
    layer: Annotated[Conv2d | Linear, Field(discriminator="type")]
    """The layer whose weights are meant; it takes its name from this one."""

    @model_validator(mode="after")
    def _refuse_inner_name(self) -> Self:
        if self.layer.name is not None:
            raise spec_error(
                "misplaced_name",
                "/layer/name",
                f"the layer in a weight_norm has no name of its own: give {self.layer.name!r} to the weight_norm",
                got=self.layer.name,
            )
        return self

    def cost(self, shape: Shape) -> LayerCost:
        cost = self.layer.cost(shape)
        return replace(cost, num_parameters=cost.num_parameters + cost.shape[0])

    def build(self, shape: Shape) -> nn.Module:
        from torch.nn.utils.parametrizations import weight_norm

        module: nn.Module = weight_norm(self.layer.build(shape))
        return module


MAX_DEPTH = 4
"""Of residual blocks in residual blocks: what walks through them doubles its work with every level."""


class Residual(base.Join):
    """layers(x) + shortcut(x): the layers learn what to add to their input (He et al., CVPR 2016).

    Without a shortcut the input itself is added. Its layers are called `<name>.<layer>`, those of the shortcut
    `<name>.shortcut.<layer>`.
    """

    type: Literal["residual"] = "residual"
    layers: Annotated[Items[Layer], Field(min_length=1, max_length=1000), AfterValidator(with_names)]
    """The branch, in the order in which its layers are applied."""
    shortcut: Annotated[Items[Layer], Field(max_length=1000), AfterValidator(with_names)] = ()
    """The other way, such as a 1 × 1 convolution where the shape changes."""

    @model_validator(mode="after")
    def _limit_depth(self) -> Self:
        if _depth(self) > MAX_DEPTH:
            raise spec_error("nested_too_deep", "", f"residual blocks may be nested {MAX_DEPTH} deep, not deeper")
        return self

    def join(self, shapes: Sequence[Shape]) -> LayerCost:
        branch, shortcut = shapes
        if branch != shortcut:
            raise ShapeError(
                f"its layers give {branch}, but its shortcut gives {shortcut}: they must be the same to add"
            )
        return LayerCost(branch)

    def cost(self, shape: Shape) -> LayerCost:
        return self.join([shape_after(self.layers, shape), shape_after(self.shortcut, shape)])

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
        | AdaptiveAvgPool2d
        | GlobalAvgPool2d
        | GlobalMaxPool2d
        | Flatten
        | Linear
        | WeightNorm
        | ReLU
        | LeakyReLU
        | ELU
        | GELU
        | SiLU
        | Hardswish
        | Hardsigmoid
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
    inner = (layer for layer in (*block.layers, *block.shortcut) if isinstance(layer, Residual))
    return 1 + max(map(_depth, inner), default=0)


def shape_after(layers: Sequence[base.Layer], shape: Shape) -> Shape:
    """The shape that samples of `shape` have behind `layers`. Raises ShapeError."""
    for layer in layers:
        shape = layer.cost(shape).shape
    return shape


def graph_of(layers: Sequence[base.Layer], pointer: str = "") -> tuple[Node, ...]:
    """The graph of a list of named layers, which stands at `pointer`; a block comes behind its layers."""
    nodes: list[Node] = []
    _append(nodes, layers, source=0, prefix="", pointer=pointer)
    return tuple(nodes)


def _append(nodes: list[Node], layers: Sequence[base.Layer], source: int, prefix: str, pointer: str) -> int:
    """Add the layers behind the tensor `source`, and give the tensor that they make."""
    for index, layer in enumerate(layers):
        name, place = f"{prefix}{layer.name}", f"{pointer}/{index}"
        inputs: tuple[int, ...] = (source,)
        if isinstance(layer, Residual):
            inputs = (
                _append(nodes, layer.layers, source, f"{name}.", f"{place}/layers"),
                _append(nodes, layer.shortcut, source, f"{name}.shortcut.", f"{place}/shortcut"),
            )
        nodes.append(Node(name, layer, inputs, place))
        source = len(nodes)
    return source


def build_layers(layers: Sequence[base.Layer], shape: Shape) -> nn.Sequential:
    """The torch modules of named layers for samples of `shape`, each a child under its name."""
    from torch import nn

    modules = nn.Sequential()
    for layer in layers:
        modules.add_module(str(layer.name), layer.build(shape))
        shape = layer.cost(shape).shape
    return modules


Residual.model_rebuild()
