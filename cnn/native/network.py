"""A network of which the library computes some layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cnn.native.library import KERNELS, Library, used
from cnn.nn.whitening import WhiteningConv2d


class Network(nn.Sequential):
    """The input normalization, then layers in a row, of which the library computes those that it has kernels for."""

    def forward(self, input: Tensor) -> Tensor:
        normalization, *layers = self.children()
        x: Tensor = normalization(input)
        library = None if torch.onnx.is_in_onnx_export() or torch.is_autocast_enabled("cpu") else used()
        block = FirstBlock.of(layers) if library and _is_plain(x) and not x.requires_grad else None
        if library and block:
            x, layers = block.apply(library, x), layers[block.length :]
        while layers:
            halving = Halving.of(layers) if library and _is_plain(x) else None
            if library and halving and x.is_contiguous(memory_format=torch.channels_last):
                x, layers = halving.apply(library, x), layers[halving.length :]
            else:
                x, layers = layers[0](x), layers[1:]
        return x


def _is_plain(x: Tensor) -> bool:
    """Whether it is a batch of images that the library can read."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 4


@dataclass(frozen=True)
class Halving:
    """2 × 2 max-pooling, perhaps with a ReLU behind it."""

    relu: bool

    @property
    def length(self) -> int:
        """How many layers it takes the place of."""
        return 1 + self.relu

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> Halving | None:
        """That which the layers begin with."""
        match layers:
            case [nn.MaxPool2d() as pool, *rest] if _is_halving(pool):
                return cls(relu=bool(rest) and isinstance(rest[0], nn.ReLU))
        return None

    def apply(self, library: Library, x: Tensor) -> Tensor:
        """Its output for images that lie channels last."""
        if x.requires_grad and torch.is_grad_enabled():
            output: Tensor = _Halved.apply(library, x, self.relu)
            return output
        return library.pool(x, relu=self.relu, winners=False)[0]


@dataclass(frozen=True)
class FirstBlock:
    """A convolution and a halving behind it."""

    conv: nn.Conv2d | WhiteningConv2d
    padding: int
    halving: Halving

    @property
    def length(self) -> int:
        """How many layers it takes the place of."""
        return 1 + self.halving.length

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> FirstBlock | None:
        """The block that the layers begin with, if the library has a kernel for it."""
        match layers:
            case [nn.Conv2d() | WhiteningConv2d() as conv, *rest]:
                padding, halving = _padding(conv), Halving.of(rest)
                return None if padding is None or halving is None else cls(conv, padding, halving)
        return None

    def apply(self, library: Library, images: Tensor) -> Tensor:
        """Its output for images of few channels that need no gradient."""
        weight, relu = self.conv.weight, self.halving.relu
        bias = None if isinstance(self.conv, WhiteningConv2d) else self.conv.bias
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trained and torch.is_grad_enabled():
            output: Tensor = _Trained.apply(library, images, weight, bias, self.padding, relu)
            return output
        return library.forward(images, weight, bias, padding=self.padding, relu=relu, winners=False)[0]


def _is_halving(pool: nn.MaxPool2d) -> bool:
    sides = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    return sides == (2, 2, 0, 1) and not pool.ceil_mode


def _padding(conv: nn.Conv2d | WhiteningConv2d) -> int | None:
    """Pixels of zeros on each side; None where the library has no such convolution."""
    kernel_size = conv.weight.shape[-1]
    if (kernel_size, conv.weight.shape[1]) not in KERNELS:
        return None
    if isinstance(conv, WhiteningConv2d):
        return kernel_size // 2
    if (conv.stride, conv.dilation, conv.groups) != ((1, 1), (1, 1), 1):
        return None
    match conv.padding:
        case "same":
            return kernel_size // 2
        case "valid":
            return 0
        case padding:
            return int(padding[0])


class _Trained(torch.autograd.Function):
    """The block with gradients of its weights, which are float32 as the images are."""

    @staticmethod
    def forward(
        ctx: Any, library: Library, images: Tensor, weight: Tensor, bias: Tensor | None, padding: int, relu: bool
    ) -> Tensor:
        output, winners = library.forward(images, weight, bias, padding=padding, relu=relu, winners=True)
        ctx.library, ctx.padding = library, padding
        ctx.save_for_backward(images, weight, winners)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, winners = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_weight, of_bias = ctx.library.backward(images, weight, winners, gradient, padding=ctx.padding)
        return None, None, of_weight, of_bias if ctx.needs_input_grad[3] else None, None, None


class _Halved(torch.autograd.Function):
    """A halving with the gradient of its input."""

    @staticmethod
    def forward(ctx: Any, library: Library, x: Tensor, relu: bool) -> Tensor:
        output, winners = library.pool(x, relu=relu, winners=True)
        ctx.library, ctx.shape = library, x.shape
        ctx.save_for_backward(winners)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (winners,) = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return None, ctx.library.unpool(ctx.shape, winners, gradient), None
