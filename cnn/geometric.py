"""Geometric augmentation. To add one: write its class, then name it in `augmentation.py`.

Adjacent ones with the same fill act as one: as a gather of whole pixels when they all move whole pixels (uint8 stays
uint8), else as one matrix and one bilinear resampling (float32 comes out, without rounding). What one of them pushes
out of the picture, a later one can bring back: nothing is cut off in between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.base import Probability, Shape, ShapeError
from cnn.transform import PixelMove, PixelShift, Warp

if TYPE_CHECKING:
    from torch import Tensor

    from cnn.transforms.draws import Draws
    from cnn.transforms.sampling import Motion

Share = Annotated[float, Field(gt=0, le=1)]


class RandomCrop(PixelShift):
    """Pads every side with `padding` pixels and cuts out a window of the image's size at a random place."""

    type: Literal["random_crop"] = "random_crop"
    padding: Annotated[int, Field(ge=1, le=1024)] = 2
    """Pixels added on every side."""

    def check(self, shape: Shape) -> None:
        side = min(shape[1:])
        if self.padding >= side:
            raise ShapeError(f"padding must be smaller than the image's side of {side} pixels, got {self.padding}")

    def motion(self, draws: Draws, size: tuple[int, int]) -> Motion:
        from cnn.transforms.sampling import shifting

        return shifting(draws.integers(-self.padding, self.padding, 2).T, (self.padding, self.padding))


class HorizontalFlip(PixelMove):
    """Mirrors a sample left to right.

    "random" mirrors with probability `p`. "alternating" (Jordan, 2024) mirrors a random half of the images in the first
    epoch, `p` being 0.5, the other half in the second, and so on: two epochs in turn show each image both ways.
    """

    type: Literal["horizontal_flip"] = "horizontal_flip"
    mode: Literal["random", "alternating"] = "random"
    """Drawn anew each time, or in turn."""
    p: Probability = 0.5
    """Probability that a sample is mirrored, with mode "random"."""

    def check(self, shape: Shape) -> None:
        if self.mode == "alternating" and self.p != 0.5:
            raise ShapeError(f'p must be 0.5 with mode "alternating", got {self.p}')

    def motion(self, draws: Draws, size: tuple[int, int]) -> Motion:
        import torch

        from cnn.transforms.sampling import mirroring

        if self.mode == "random":
            flip = draws.chance(self.p)
        else:
            flip = draws.fixed_bit("alternating_flip") ^ (draws.epoch % 2 == 0)
        return mirroring(torch.stack([torch.zeros_like(flip), flip]))


class VerticalFlip(PixelMove):
    """Mirrors a sample top to bottom with probability `p`."""

    type: Literal["vertical_flip"] = "vertical_flip"
    p: Probability = 0.5
    """Probability that a sample is mirrored."""

    def motion(self, draws: Draws, size: tuple[int, int]) -> Motion:
        import torch

        from cnn.transforms.sampling import mirroring

        flip = draws.chance(self.p)
        return mirroring(torch.stack([flip, torch.zeros_like(flip)]))


class Translate(PixelShift):
    """Moves a sample by round(u · size) pixels in each direction, u uniform in [-max_shift, max_shift]."""

    type: Literal["translate"] = "translate"
    max_shift: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Largest shift, as a share of the image's height and width."""

    def motion(self, draws: Draws, size: tuple[int, int]) -> Motion:
        import torch

        from cnn.transforms.sampling import shifting

        pixels = torch.stack([draws.uniform(-self.max_shift, self.max_shift) * side for side in size])
        return shifting(
            pixels.round_().long(), (math.ceil(self.max_shift * size[0]), math.ceil(self.max_shift * size[1]))
        )


class RandomResizedCrop(Warp):
    """Cuts out a window and enlarges it to the image's size (the "inception crop" of Szegedy et al., CVPR 2015).

    The window has a share of the image's area uniform in [min_area, 1], and the image's ratio of width to height times
    exp(u), u uniform in ±log max_ratio; a side that would be longer than the image's is as long. Its place is uniform,
    not in whole pixels. At its border, pixels beside it shine in, unlike in torchvision's crop.
    """

    type: Literal["random_resized_crop"] = "random_resized_crop"
    min_area: Share = 0.5
    """Smallest share of the image's area."""
    max_ratio: Annotated[float, Field(ge=1, le=10)] = 4 / 3
    """Largest factor by which the ratio of width to height grows or shrinks."""

    def matrix(self, draws: Draws, size: tuple[int, int]) -> Tensor:
        from cnn.transforms.warping import crop

        height, width = size
        area = draws.uniform(self.min_area, 1)
        ratio = draws.log_uniform(1 / self.max_ratio, self.max_ratio)
        window = width * (area * ratio).sqrt().clamp(max=1), height * (area / ratio).sqrt().clamp(max=1)
        left, top = draws.uniform() * (width - window[0]), draws.uniform() * (height - window[1])
        return crop(left, top, *window, size)


class CenterCrop(Warp):
    """Cuts out the middle and enlarges it to the image's size: the same for every sample."""

    type: Literal["center_crop"] = "center_crop"
    size: Share = 0.875
    """Share of the image's height and of its width that is kept."""

    def matrix(self, draws: Draws, size: tuple[int, int]) -> Tensor:
        from cnn.transforms.warping import scaling

        factor = draws.uniform() * 0 + 1 / self.size
        return scaling(factor, factor)


class Zoom(Warp):
    """Enlarges (zooms in) or makes smaller (zooms out) about the middle by exp(u), u uniform in log of the range."""

    type: Literal["zoom"] = "zoom"
    min_factor: Annotated[float, Field(ge=0.05, le=1)] = 0.8
    """Smallest factor; below 1 the picture becomes smaller and `fill` surrounds it."""
    max_factor: Annotated[float, Field(ge=1, le=20)] = 1.25
    """Largest factor."""

    def matrix(self, draws: Draws, size: tuple[int, int]) -> Tensor:
        from cnn.transforms.warping import scaling

        factor = draws.log_uniform(self.min_factor, self.max_factor)
        return scaling(factor, factor)


class Rotate(Warp):
    """Turns a sample about its middle by an angle uniform in [-degrees, degrees]."""

    type: Literal["rotate"] = "rotate"
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest angle in either direction."""

    def matrix(self, draws: Draws, size: tuple[int, int]) -> Tensor:
        from cnn.transforms.warping import rotation

        return rotation(draws.uniform(-self.degrees, self.degrees))


class Shear(Warp):
    """Shears a sample about its middle, rows by tan a times their height and then columns by tan b: angles uniform."""

    type: Literal["shear"] = "shear"
    degrees_x: Annotated[float, Field(ge=0, le=80)] = 10.0
    """Largest angle a, by which upright lines lean, in either direction."""
    degrees_y: Annotated[float, Field(ge=0, le=80)] = 0.0
    """Largest angle b, by which level lines lean, in either direction."""

    def matrix(self, draws: Draws, size: tuple[int, int]) -> Tensor:
        from cnn.transforms.warping import shearing

        a = draws.uniform(-self.degrees_x, self.degrees_x).deg2rad()
        b = draws.uniform(-self.degrees_y, self.degrees_y).deg2rad()
        return shearing(a.tan(), b.tan())


class Perspective(Warp):
    """Moves each corner inwards, by u · distortion_scale · half the side in both directions, u uniform in [0, 1].

    With probability `p`; the picture follows its corners as a plane does (as torchvision's RandomPerspective).
    """

    type: Literal["perspective"] = "perspective"
    distortion_scale: Annotated[float, Field(ge=0, le=0.9)] = 0.3
    """Largest move of a corner, as a share of half the side."""
    p: Probability = 0.5
    """Probability that a sample is changed."""

    def matrix(self, draws: Draws, size: tuple[int, int]) -> Tensor:
        import torch

        from cnn.transforms.constants import constant
        from cnn.transforms.warping import perspective

        moved = draws.uniform(0, self.distortion_scale, 4, 2)
        x, y = size[1] / 2, size[0] / 2
        corners = constant(((-x, -y), (x, -y), (x, y), (-x, y)), moved.device)
        matrices = perspective(corners * (1 - moved), size)
        identity = torch.eye(3, device=moved.device)
        return torch.where(draws.chance(self.p)[:, None, None], matrices, identity)
