"""Bilinear resampling of images by one call of the library."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

DTYPES = (torch.uint8, torch.float32)
BORDER = 2
"""As in `warp.cpp`."""


class Warp(ctypes.Structure):
    """The struct of this name in `warp.cpp`."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("images", "channels", "height", "width")],
        *[(name, ctypes.c_int64) for name in ("is_bytes", "projective", "threads")],
        ("fill", ctypes.c_double),
    ]


class Warping:
    """Those functions of a library that resample images."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._scratch, self._warp = functions.warp_scratch, functions.warp_images
        self._scratch.argtypes = [ctypes.POINTER(Warp)]
        self._scratch.restype = ctypes.c_int64
        self._warp.argtypes = [ctypes.POINTER(Warp), *[ctypes.c_void_p] * 4]
        self._warp.restype = None

    @staticmethod
    def takes(images: Tensor, matrices: Tensor) -> bool:
        """Whether it can read these, and need not say how the result depends on them."""
        height, width = images.shape[2:]
        trained = torch.is_grad_enabled() and (images.requires_grad or matrices.requires_grad)
        fits = (height + 2 * BORDER) * (width + 2 * BORDER) < 2**31
        return images.is_cpu and images.dtype in DTYPES and not trained and fits

    def apply(self, images: Tensor, matrices: Tensor, fill: float, *, projective: bool) -> Tensor:
        """What `cnn.transforms.warping.warp` says, to rounding."""
        if fill not in range(256):
            images = images.float()  # bytes with a border of bytes could not hold it
        images, matrices = images.contiguous(), matrices.float().contiguous()
        is_bytes = images.dtype == torch.uint8
        warp = Warp(*images.shape, is_bytes, projective, torch.get_num_threads(), fill)
        scratch = torch.empty(warp.threads * self._scratch(ctypes.byref(warp)), dtype=torch.float32)
        output = torch.empty(images.shape, dtype=torch.float32)
        tensors = (images, matrices, scratch, output)
        self._warp(ctypes.byref(warp), *(tensor.data_ptr() for tensor in tensors))
        return output
