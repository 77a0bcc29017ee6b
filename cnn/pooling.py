"""Pooling layers. To add one: write its class, then name it in `Layer` at the bottom of `layers.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.base import Layer, LayerCost, Shape, ShapeError

if TYPE_CHECKING:
    from torch import nn

INDEX_BYTES = 8
"""Torch keeps the place of each maximum as an int64."""

KernelSize = Annotated[int, Field(ge=1, le=255)]
Stride = Annotated[int, Field(ge=1, le=255)]
Padding = Annotated[int, Field(ge=0, le=255)]


def window(size: int, kernel_size: int, stride: int, padding: int, dilation: int = 1) -> int:
    """How many positions a window takes along one side; torch's rounding (down)."""
    extent = dilation * (kernel_size - 1) + 1
    if extent > size + 2 * padding:
        raise ShapeError(f"its kernel covers {extent} pixels, but only {size} + 2 x {padding} (padding) reach it")
    return (size + 2 * padding - extent) // stride + 1


class MaxPool2d(Layer):
    """The largest value of each window."""

    type: Literal["max_pool2d"] = "max_pool2d"
    kernel_size: KernelSize
    """Side of the square window, in pixels."""
    stride: Stride | None = None
    """Step of the window, in pixels; by default its side."""
    padding: Padding = 0
    """Pixels of minus infinity around the image, at most half the window."""

    def cost(self, shape: Shape) -> LayerCost:
        pooled = _pooled(self, shape)
        return LayerCost(pooled, keeps_input=True, kept_bytes=INDEX_BYTES * math.prod(pooled))

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.MaxPool2d(self.kernel_size, self.stride, self.padding)


class AvgPool2d(Layer):
    """The mean of each window; padded zeros count, as in torch."""

    type: Literal["avg_pool2d"] = "avg_pool2d"
    kernel_size: KernelSize
    """Side of the square window, in pixels."""
    stride: Stride | None = None
    """Step of the window, in pixels; by default its side."""
    padding: Padding = 0
    """Pixels of zeros around the image, at most half the window."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(_pooled(self, shape), keeps_input=True)

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
        window(height, layer.kernel_size, stride, layer.padding),
        window(width, layer.kernel_size, stride, layer.padding),
    )


class AdaptiveAvgPool2d(Layer):
    """The means of `output_size` × `output_size` windows that cover the image, whatever its size."""

    type: Literal["adaptive_avg_pool2d"] = "adaptive_avg_pool2d"
    output_size: Annotated[int, Field(ge=1, le=255)]
    """Side of what comes out, in pixels."""

    def cost(self, shape: Shape) -> LayerCost:
        channels, height, width = self.require_image(shape)
        if self.output_size > min(height, width):
            raise ShapeError(f"output_size may be at most the side of the image, got {self.output_size} for {shape}")
        # Torch computes a single mean per channel as a mean, which keeps nothing.
        return LayerCost((channels, self.output_size, self.output_size), keeps_input=self.output_size > 1)

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.deterministic import AdaptiveAvgPool2d as Module

        return Module(self.output_size)


class GlobalAvgPool2d(Layer):
    """The mean of each channel: an image becomes a vector of its channels."""

    type: Literal["global_avg_pool2d"] = "global_avg_pool2d"

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost((self.require_image(shape)[0],))

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class GlobalMaxPool2d(Layer):
    """The largest value of each channel: an image becomes a vector of its channels."""

    type: Literal["global_max_pool2d"] = "global_max_pool2d"

    def cost(self, shape: Shape) -> LayerCost:
        channels = self.require_image(shape)[0]
        return LayerCost((channels,), keeps_input=True, kept_bytes=INDEX_BYTES * channels)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        # Of torch's adaptive one the gradient is not deterministic on a GPU.
        return nn.Sequential(nn.MaxPool2d((shape[1], shape[2])), nn.Flatten())
