"""Updates of all tensors of a network by one call of the library: the rules of optimizers, a penalty, a constraint."""

from __future__ import annotations

import ctypes
import enum
import itertools
import math
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

NUM_OPERANDS = 5
NUM_COEFFICIENTS = 8
DTYPES = (torch.float32, torch.float64)


class Rule(enum.IntEnum):
    """The structs of `updates.cpp`, numbered as in its `dispatch`. Each names its coefficients and its operands."""

    SGD = 0
    MOMENTUM = 1
    LOOKAHEAD = 2
    ADAGRAD = 3
    RMSPROP = 4
    ADAM = 5
    AMSGRAD = 6
    NADAM = 7
    ADADELTA = 8
    LION = 9
    L1 = 10


class Update(ctypes.Structure):
    """The struct of this name in `updates.cpp`."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("rule", "is_double", "num_tensors", "threads")],
        ("coefficients", ctypes.c_double * NUM_COEFFICIENTS),
    ]


class Layout:
    """How tensors lie in memory of the CPU: each without gaps, in the order of its numbers or channels last.

    Ask `of` for one. It holds while the tensors keep their kind, shapes and strides, whatever their memory.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.is_double = tensors[0].dtype == torch.float64
        self.sizes = array("q", [tensor.numel() for tensor in tensors])
        self._shapes = [tensor.shape for tensor in tensors]
        self._strides = [tensor.stride() for tensor in tensors]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Layout | None:
        """That of one or more tensors; None where the library cannot walk through one of them."""
        dtype = tensors[0].dtype
        alike = all(tensor.is_cpu and tensor.dtype == dtype and _is_dense(tensor) for tensor in tensors)
        return cls(tensors) if alike and dtype in DTYPES else None

    def is_that_of(self, gradients: Sequence[Tensor]) -> bool:
        """Whether these, of the kind and the shapes of the tensors, lie as they do."""
        found = [gradient.stride() for gradient in gradients]
        return found == self._strides or all(
            side == 1 or stride == other  # nobody ever takes a stride along a side of 1
            for shape, *both in zip(self._shapes, self._strides, found, strict=True)
            for side, stride, other in zip(shape, *both, strict=True)
        )


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)


class Updates:
    """Those functions of a library that walk through memory."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._update, self._limit = functions.update_tensors, functions.limit_norms
        self._update.argtypes = [ctypes.POINTER(Update), *[ctypes.c_void_p] * 2]
        self._update.restype = ctypes.c_bool
        self._limit.argtypes = [ctypes.POINTER(Update), *[ctypes.c_void_p] * 3]
        self._limit.restype = None

    def apply(
        self, rule: Rule, layout: Layout, operands: Sequence[Sequence[Tensor]], coefficients: Sequence[float]
    ) -> None:
        """Update in place what the rule changes: `operands` are its lists of tensors, which lie as `layout` says.

        Raises:
            ValueError: the library has no such rule.
        """
        columns = [[tensor.data_ptr() for tensor in tensors] for tensors in operands]
        columns += columns[:1] * (NUM_OPERANDS - len(columns))  # the rule looks at none of these
        pointers = array("Q", itertools.chain.from_iterable(zip(*columns, strict=True)))
        update = _update(rule, layout, coefficients)
        if not self._update(ctypes.byref(update), _address(pointers), _address(layout.sizes)):
            raise ValueError(f"there is no kernel for {rule!r}")

    def limit_norms(self, layout: Layout, weights: Sequence[Tensor], limit: float) -> None:
        """w ← w · min(1, limit / ‖w‖₂) in place, for each w = weight[i] of the weights, which lie as `layout` says."""
        pointers = array("Q", [weight.data_ptr() for weight in weights])
        lengths = array("q", [math.prod(weight.shape[1:]) for weight in weights])
        update = _update(0, layout, [limit])
        self._limit(ctypes.byref(update), _address(pointers), _address(layout.sizes), _address(lengths))


def _update(rule: int, layout: Layout, coefficients: Sequence[float]) -> Update:
    padded = (ctypes.c_double * NUM_COEFFICIENTS)(*coefficients)
    return Update(rule, layout.is_double, len(layout.sizes), torch.get_num_threads(), padded)


def _address(numbers: array[int]) -> int:
    return numbers.buffer_info()[0]
