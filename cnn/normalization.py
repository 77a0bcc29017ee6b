"""Normalization of the input, and normalization layers.

To add an input normalization: write its class, then name it in `Normalization` at the bottom.
To add a layer: write its class, then name it in `Layer` at the bottom of `layers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Layer, LayerCost, Shape, Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


def _histogram(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the 256 values occurs, per channel: (C, 256). Exact, and one pass over (N, C, H, W)."""
    import numpy as np

    return np.stack([np.bincount(images[:, c].reshape(-1), minlength=256) for c in range(images.shape[1])])


class Standardize(Spec):
    """x' = (x - mean) / std, with the mean and standard deviation of each channel over the training split.

    A channel without variance is only centred.
    """

    type: Literal["standardize"] = "standardize"

    def fit(self, images: NDArray[np.uint8]) -> dict[str, Tensor]:
        """Statistics of training images (N, C, H, W) in 0..255, each of shape (C,)."""
        import numpy as np
        import torch

        counts = _histogram(images).astype(np.float64)
        share = counts / counts.sum(axis=1, keepdims=True)
        values = np.arange(256, dtype=np.float64)
        mean = share @ values
        std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
        std[std == 0] = 1
        return {"mean": torch.from_numpy(mean).float(), "std": torch.from_numpy(std).float()}

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.normalization import Standardize as Module

        return Module(shape[0])


class MinMax(Spec):
    """x' = (x - min) / (max - min), with the extremes of each channel over the training split: 0 to 1.

    A channel without range is only shifted.
    """

    type: Literal["min_max"] = "min_max"

    def fit(self, images: NDArray[np.uint8]) -> dict[str, Tensor]:
        """Statistics of training images (N, C, H, W) in 0..255, each of shape (C,)."""
        import numpy as np
        import torch

        present = _histogram(images) > 0
        low = present.argmax(axis=1)
        high = 255 - present[:, ::-1].argmax(axis=1)
        return {
            "minimum": torch.from_numpy(low).float(),
            "range": torch.from_numpy(np.maximum(high - low, 1)).float(),
        }

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.normalization import MinMax as Module

        return Module(shape[0])


class BatchNorm(Layer):
    """Normalizes each channel over the batch, then scales and shifts it (Ioffe & Szegedy, ICML 2015).

    While training: y = (x - mean_B) / sqrt(var_B + eps) · weight + bias; running statistics follow with `momentum`
    and are used at test. Works on images and on vectors.
    """

    type: Literal["batch_norm"] = "batch_norm"
    eps: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance."""
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of the newest batch in the running statistics: torch's convention, not Keras's."""
    affine: bool = True
    """Learn a weight and a bias per channel."""

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape, num_parameters=2 * shape[0] if self.affine else 0)

    def build(self, shape: Shape) -> nn.Module:
        from torch import nn

        module = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
        return module(shape[0], eps=self.eps, momentum=self.momentum, affine=self.affine)


Normalization = TypeAliasType("Normalization", Annotated[Standardize | MinMax, Field(discriminator="type")])
