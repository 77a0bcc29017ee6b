"""Augmentation that takes detail away. To add one: write its class, then name it in `augmentation.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cnn.base import Probability
from cnn.transform import Fill, Pixelwise

if TYPE_CHECKING:
    from torch import Tensor

    from cnn.transforms.draws import Draws

Sigma = Annotated[float, Field(gt=0, le=20)]


def _radius(max_sigma: float, images: Tensor) -> int:
    """Three standard deviations, but within what can be reflected at the border."""
    return min(math.ceil(3 * max_sigma), min(images.shape[2:]) - 1)


class GaussianBlur(Pixelwise):
    """Blurs the whole image by a Gaussian with σ uniform in [0, max_sigma] pixels, with probability `p`.

    The kernel ends after 3 · max_sigma pixels; the image is reflected at its border. Float32 comes out.
    """

    type: Literal["gaussian_blur"] = "gaussian_blur"
    max_sigma: Sigma = 1.0
    """Largest standard deviation in pixels."""
    p: Probability = 0.5
    """Probability that a sample is blurred."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        import torch

        from cnn.transforms.blur import gaussian_blur
        from cnn.transforms.selection import change

        sigma, radius = draws.uniform(0, self.max_sigma), _radius(self.max_sigma, images)
        floats = images.to(torch.float32, copy=True)
        return change(floats, draws.chance(self.p), lambda some, rows: gaussian_blur(some, sigma[rows], radius))


class PatchBlur(Pixelwise):
    """Blurs the pixels of `num_patches` random rectangles, as `gaussian_blur` does with σ = `sigma`.

    Their sides are shares of the image's, uniform in [0, max_size]; their places are uniform within the image.
    """

    type: Literal["patch_blur"] = "patch_blur"
    num_patches: Annotated[int, Field(ge=1, le=100)] = 3
    """Rectangles of a sample; they may overlap."""
    max_size: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Longest side, as a share of the image's."""
    sigma: Sigma = 1.5
    """Standard deviation of the Gaussian in pixels."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        import torch

        from cnn.transforms.blur import boxes, gaussian_blur
        from cnn.transforms.selection import select

        size = (images.shape[2], images.shape[3])
        inside = torch.zeros_like(images[:, :1], dtype=torch.bool)
        for _ in range(self.num_patches):
            high, wide = ((draws.uniform(0, self.max_size) * side).round().long() for side in size)
            top, left = draws.uniform() * (size[0] - high + 1), draws.uniform() * (size[1] - wide + 1)
            inside |= boxes(top.long(), left.long(), high, wide, size)
        sigma = torch.full((len(images),), self.sigma, device=images.device)
        blurred = gaussian_blur(images, sigma, _radius(self.sigma, images))
        return select(inside, blurred, images.float())


class RandomErasing(Pixelwise):
    """Overwrites a random rectangle with probability `p` (Zhong et al., AAAI 2020; cutout: DeVries & Taylor, 2017).

    Its area is a share of the image's, uniform in [min_area, max_area], its ratio of height to width exp(u) with u
    uniform in ±log max_ratio; a side that would be longer than the image's is as long. uint8 stays uint8.
    """

    in_chunks: ClassVar[bool] = False
    type: Literal["random_erasing"] = "random_erasing"
    p: Probability = 0.5
    """Probability that a sample is changed."""
    min_area: Annotated[float, Field(ge=0, le=0.1)] = 0.02
    """Smallest share of the area."""
    max_area: Annotated[float, Field(ge=0.1, le=1)] = 0.33
    """Largest share of the area."""
    max_ratio: Annotated[float, Field(ge=1, le=10)] = 3.3
    """Largest ratio of height to width, and of width to height."""
    value: Fill | Literal["noise"] = "noise"
    """What stands there: one value, or one drawn uniformly from 0..255 for every pixel and channel."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.blur import box_sides, erase

        size = (images.shape[2], images.shape[3])
        ratio = draws.log_uniform(1 / self.max_ratio, self.max_ratio)
        high, wide = box_sides(draws.uniform(self.min_area, self.max_area), ratio, size)
        top, left = draws.uniform() * (size[0] - high + 1), draws.uniform() * (size[1] - wide + 1)
        places = (top.long(), left.long(), high, wide)
        return erase(images, draws.chance(self.p), places, None if self.value == "noise" else self.value, draws)
