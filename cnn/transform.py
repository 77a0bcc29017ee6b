"""What the kinds of augmentation share. A kind says what `augmentation.py` asks of its members."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cnn.base import Shape, Spec

if TYPE_CHECKING:
    from torch import Tensor

    from cnn.transforms.draws import Draws
    from cnn.transforms.sampling import Motion

Fill = Annotated[int, Field(ge=0, le=255)]


class Stage(IntEnum):
    """When a transform acts, in this order; those that act inside the network may stand anywhere in the list."""

    BATCH = 0
    IMAGE = 1
    MIX = 2
    NETWORK = 3


class Transform(Spec):
    """One entry of the list `augmentation`. Every sample of a batch gets parameters of its own."""

    type: str
    """Which transform it is: the discriminator of the union."""
    stage: ClassVar[Stage] = Stage.IMAGE

    def check(self, shape: Shape) -> None:
        """Raise ShapeError when images of `shape` (channels, height, width) cannot be transformed."""


class Pixelwise(Transform):
    """Takes images and gives images of the same shape, by itself."""

    in_chunks: ClassVar[bool] = True
    """Whether float32 comes out after so many passes over the images that a few of them at a time are faster."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (N, C, H, W) in 0..255, uint8 or float32, with parameters drawn from `draws`."""
        raise NotImplementedError


class Warp(Transform):
    """Moves pixels to places between pixels. Neighbours of this kind become one matrix and one bilinear resampling."""

    fill: Fill = 0
    """Value of what comes from outside the image."""

    def matrix(self, draws: Draws, size: tuple[int, int]) -> Tensor:
        """Matrices (N, 3, 3), see `cnn.transforms.warping`, for images of `size` (height, width)."""
        raise NotImplementedError


class PixelMove(Transform):
    """Moves whole pixels: neighbours of this kind become one gather, and beside a Warp a part of its matrix."""

    def motion(self, draws: Draws, size: tuple[int, int]) -> Motion:
        """Shifts and mirrorings for images of `size` (height, width)."""
        raise NotImplementedError


class PixelShift(PixelMove):
    """One that lets something in from outside the image."""

    fill: Fill = 0
    """Value of what comes from outside the image."""


class Mixing(Transform):
    """Makes one sample of two, and its target of two targets."""

    stage: ClassVar[Stage] = Stage.MIX
    p: float

    def mix(self, images: Tensor, targets: Tensor, chosen: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images and probabilities (N, classes); both stay as they are where the scalar `chosen` is false."""
        raise NotImplementedError
