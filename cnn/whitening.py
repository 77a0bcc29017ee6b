"""A first convolution whose filters come from the training images and stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cnn.base import Layer, LayerCost, Shape, ShapeError

if TYPE_CHECKING:
    from torch import Tensor, nn


class WhiteningConv2d(Layer):
    """A frozen convolution that decorrelates patches (Page, 2019; Jordan, 2024, arXiv 2404.00498).

    Its filters are the eigenvectors v_i of the covariance of normalized training patches of kernel_size² · channels
    values, scaled to unit response, v_i / √(λ_i + eps), and their negatives: 2 · kernel_size² · channels filters, since
    the ReLU behind them would lose one half. No gradient flows through it, so only the first layer may be one.
    """

    is_fitted: ClassVar[bool] = True

    type: Literal["whitening_conv2d"] = "whitening_conv2d"
    kernel_size: Annotated[int, Field(ge=1, le=15)] = 3
    """Side of the square patches, in pixels; the image keeps its size when it is odd."""
    eps: Annotated[float, Field(gt=0)] = 1e-2
    """Added to the eigenvalues, so that directions without variance are not blown up."""

    def cost(self, shape: Shape) -> LayerCost:
        channels, height, width = self.require_image(shape)
        if self.kernel_size > min(height, width):
            raise ShapeError(f"kernel_size may be at most the side of the image, got {self.kernel_size} for {shape}")
        padding = self.kernel_size // 2
        height, width = (side + 2 * padding - self.kernel_size + 1 for side in (height, width))
        values = channels * self.kernel_size**2
        return LayerCost((2 * values, height, width), num_parameters=0, macs=2 * values**2 * height * width)

    def build(self, shape: Shape) -> nn.Module:
        from cnn.nn.whitening import WhiteningConv2d as Module

        return Module(shape[0], self.kernel_size)

    def fit(self, images: Tensor) -> dict[str, Tensor]:
        """The filters for normalized training images (N, C, H, W), a few thousand of which are enough."""
        from cnn.nn.whitening import whitening_filters

        return {"weight": whitening_filters(images, self.kernel_size, self.eps)}
