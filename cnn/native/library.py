"""The library in this process, and what its functions take."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cnn.native.build import FOLDER, library_path
from cnn.native.updates import Updates
from cnn.native.warp import Warping

KERNELS = frozenset({(3, 1), (3, 2), (3, 3), (5, 1), (5, 2)})
"""Sides and input channels of the filters for which there is one: those of `dispatch` in `kernels.cpp`."""


def _fields(names: str) -> list[tuple[str, type[ctypes.c_int64]]]:
    return [(name, ctypes.c_int64) for name in names.split()]


class Block(ctypes.Structure):
    """The struct of this name in `kernels.cpp`."""

    _fields_ = [
        *_fields("images channels height width filters kernel_size padding relu threads"),
        *_fields("image_stride channel_stride row_stride column_stride"),
    ]
    # Of these fields, those that this side reads.
    channels: int
    filters: int
    kernel_size: int
    threads: int

    @classmethod
    def of(cls, images: Tensor, weight: Tensor, *, padding: int, relu: bool) -> Block:
        kernel_size = weight.shape[-1]
        return cls(*images.shape, len(weight), kernel_size, padding, relu, torch.get_num_threads(), *images.stride())


class Pooling(ctypes.Structure):
    """The struct of this name in `kernels.cpp`."""

    _fields_ = _fields("images channels height width relu threads")


class Library:
    """What `kernels.cpp`, `updates.cpp` and `warp.cpp` were compiled to."""

    def __init__(self, path: Path) -> None:
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        functions = ctypes.CDLL(str(path))
        self.updates = Updates(functions)
        self.warping = Warping(functions)
        self._lanes = functions.lanes()
        self._forward, self._backward = functions.forward_block, functions.backward_block
        for function in (self._forward, self._backward):
            function.argtypes = [ctypes.POINTER(Block), *[ctypes.c_void_p] * 5]
            function.restype = ctypes.c_bool
        self._pool, self._unpool = functions.pool, functions.unpool
        for function in (self._pool, self._unpool):
            function.argtypes = [ctypes.POINTER(Pooling), *[ctypes.c_void_p] * 3]
            function.restype = None

    def forward(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int, relu: bool, winners: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The output (N, O, H, W), channels last, and with `winners` what `backward` must know, uint8 (N, H, W, O)."""
        block = Block.of(images, weight, padding=padding, relu=relu)
        count, _, *sides = images.shape
        height, width = ((side + 2 * padding - block.kernel_size + 1) // 2 for side in sides)
        output = images.new_empty(count, height, width, block.filters)
        places = torch.empty_like(output, dtype=torch.uint8) if winners else None
        packed = images.new_zeros(self._packed(weight))
        packed[:-1, : len(weight)] = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
        if bias is not None:
            packed[-1, : len(weight)] = bias
        _check(block, _call(self._forward, block, images, packed, output, places, _scratch(images, block, padding)))
        return output.permute(0, 3, 1, 2), places

    def backward(
        self, images: Tensor, weight: Tensor, winners: Tensor, gradient: Tensor, *, padding: int
    ) -> tuple[Tensor, Tensor]:
        """The gradients of weight and bias for that of the output, which lies as the output does."""
        block = Block.of(images, weight, padding=padding, relu=True)
        parts = images.new_zeros(block.threads, *self._packed(weight))
        scratch = _scratch(images, block, padding)
        _check(block, _call(self._backward, block, images, winners, gradient, parts, scratch))
        packed = parts.sum(dim=0)[:, : len(weight)]
        by_tap = packed[:-1].reshape(block.kernel_size, block.kernel_size, -1, len(weight))
        return by_tap.permute(3, 2, 0, 1), packed[-1]

    def pool(self, x: Tensor, *, relu: bool, winners: bool) -> tuple[Tensor, Tensor | None]:
        """The largest of each 2 × 2 values of x (N, C, H, W), channels last; with `winners` what `unpool` must know."""
        count, channels, height, width = x.shape
        output = x.new_empty(count, height // 2, width // 2, channels)
        places = torch.empty_like(output, dtype=torch.uint8) if winners else None
        _call(self._pool, Pooling(*x.shape, relu, torch.get_num_threads()), x, output, places)
        return output.permute(0, 3, 1, 2), places

    def unpool(self, shape: Sequence[int], winners: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of x of that shape for that of the output, both channels last."""
        count, channels, height, width = shape
        whole = height % 2 == width % 2 == 0
        result = (gradient.new_empty if whole else gradient.new_zeros)(count, height, width, channels)
        pooling = Pooling(*shape, True, torch.get_num_threads())
        _call(self._unpool, pooling, winners, gradient, result)
        return result.permute(0, 3, 1, 2)

    def _packed(self, weight: Tensor) -> tuple[int, int]:
        """Shape of weights and biases as the library takes them: a row per tap, filters along whole vectors."""
        return weight[0].numel() + 1, -(-len(weight) // self._lanes) * self._lanes


def _scratch(images: Tensor, block: Block, padding: int) -> Tensor:
    _, channels, height, width = images.shape
    return images.new_empty(block.threads, height + 2 * padding, width + 2 * padding, channels)


def _call(function: ctypes._NamedFuncPointer, what: Block | Pooling, *tensors: Tensor | None) -> object:
    return function(ctypes.byref(what), *(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def _check(block: Block, done: object) -> None:
    if not done:
        raise ValueError(f"there is no kernel for {block.channels} channels and kernels of side {block.kernel_size}")


def find(folder: Path = FOLDER) -> Library | None:
    """The library that was built for this machine; None where there is none."""
    path = library_path(folder)
    return Library(path) if path.exists() else None


_used: Library | None = None


def use(library: Library | None) -> None:
    """Let this process compute with the library, or with torch's own layers alone; like torch's threads, for all."""
    global _used
    _used = library


def used() -> Library | None:
    """The library that this process computes with."""
    return _used
