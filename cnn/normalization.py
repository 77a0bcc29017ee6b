"""Normalization of the input. To add one: write its class, then name it in `Normalization` at the bottom.

Normalization layers are in `normalization_layers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Shape, Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


def _histogram(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the 256 values occurs, per channel: (C, 256). Exact, and one pass over (N, C, H, W)."""
    import numpy as np

    counts = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), 4096):  # bincount makes eight bytes of each
        chunk = images[start : start + 4096]
        counts += np.stack([np.bincount(chunk[:, c].reshape(-1), minlength=256) for c in range(images.shape[1])])
    return counts


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


class PerImageStandardize(Spec):
    """x' = (x - mean) / max(std, 1/√n), over the n values of each image by itself: no statistics are stored.

    The lower bound is that of TensorFlow's per_image_standardization, in units of the values 0 to 255.
    """

    type: Literal["per_image_standardize"] = "per_image_standardize"

    def fit(self, images: NDArray[np.uint8]) -> dict[str, Tensor]:
        return {}

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.normalization import PerImageStandardize as Module

        return Module()


class GlobalContrast(Spec):
    """x' = scale · (x - mean) / max(eps, √(bias + variance)), over the values of each image by itself.

    Global contrast normalization as in Goodfellow, Bengio & Courville, Deep Learning (2016), eq. 12.3; values 0 to 1.
    """

    type: Literal["global_contrast"] = "global_contrast"
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of what comes out."""
    bias: Annotated[float, Field(ge=0)] = 0.0
    """Added to the variance, so that images of little contrast are not blown up: λ in the book."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Smallest denominator."""

    def fit(self, images: NDArray[np.uint8]) -> dict[str, Tensor]:
        return {}

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.normalization import GlobalContrast as Module

        return Module(self.scale, self.bias, self.eps)


class ZCAWhitening(Spec):
    """x' = U (Λ + eps)^(-1/2) Uᵀ (x - mean), with values 0 to 1 (Bell & Sejnowski, 1997; Krizhevsky, 2009).

    UΛUᵀ is the covariance of the training images as vectors of n = channels · height · width values. The result has
    unit covariance up to `eps` and stays as close to the image as it can. The matrix has n² values.
    """

    type: Literal["zca_whitening"] = "zca_whitening"
    eps: Annotated[float, Field(gt=0)] = 1e-2
    """Added to the eigenvalues: directions of less variance are left small."""

    def fit(self, images: NDArray[np.uint8]) -> dict[str, Tensor]:
        """`mean` (n,) and `matrix` (n, n) of training images (N, C, H, W) in 0..255; computed in float64."""
        import torch

        vectors = torch.from_numpy(images.reshape(len(images), -1))
        mean = torch.zeros(vectors.shape[1], dtype=torch.float64)
        product = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64)
        for chunk in torch.split(vectors, 4096):
            values = chunk.double() / 255
            mean += values.sum(dim=0)
            product += values.T @ values
        mean /= len(vectors)
        eigenvalues, eigenvectors = torch.linalg.eigh(product / len(vectors) - torch.outer(mean, mean))
        matrix = (eigenvectors * (eigenvalues.clamp(min=0) + self.eps).rsqrt()) @ eigenvectors.T
        return {"mean": mean.float(), "matrix": matrix.float()}

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.normalization import ZCAWhitening as Module

        return Module(shape)


Normalization = TypeAliasType(
    "Normalization",
    Annotated[Standardize | MinMax | PerImageStandardize | GlobalContrast | ZCAWhitening, Field(discriminator="type")],
)
