"""Augmentation. To add one: write its class, then name it in `Augmentation` at the bottom.

Every sample of a batch gets parameters of its own. The transforms act in the order of the list on uint8 images, before
normalization; what enters a picture from outside is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Probability, Shape, ShapeError, Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cnn.transforms.sampling import Sampling


class _PixelMove(Spec):
    """A transform that moves whole pixels; neighbours of this kind become one gather."""

    def check(self, shape: Shape) -> None:
        """Raise ShapeError when images of `shape` (channels, height, width) cannot be transformed."""

    def move(self, sampling: Sampling, generator: torch.Generator) -> Sampling:
        """`sampling`, followed by this transform with parameters drawn from `generator`."""
        raise NotImplementedError


class RandomCrop(_PixelMove):
    """Pads every side with `padding` zeros and cuts out a window of the image's size at a random place."""

    type: Literal["random_crop"] = "random_crop"
    padding: Annotated[int, Field(ge=1, le=1024)] = 2
    """Pixels added on every side."""

    def check(self, shape: Shape) -> None:
        side = min(shape[1:])
        if self.padding >= side:
            raise ShapeError(f"padding must be smaller than the image's side of {side} pixels, got {self.padding}")

    def move(self, sampling: Sampling, generator: torch.Generator) -> Sampling:
        import torch

        from cnn.transforms.sampling import shift

        device, size = sampling.rows.device, (2, len(sampling.rows))
        down, right = torch.randint(-self.padding, self.padding + 1, size, generator=generator, device=device)
        return shift(sampling, down, right)


class HorizontalFlip(_PixelMove):
    """Mirrors a sample left to right with probability `p`."""

    type: Literal["horizontal_flip"] = "horizontal_flip"
    p: Probability = 0.5
    """Probability that a sample is mirrored."""

    def move(self, sampling: Sampling, generator: torch.Generator) -> Sampling:
        import torch

        from cnn.transforms.sampling import flip_horizontally

        uniform = torch.rand(len(sampling.rows), generator=generator, device=sampling.rows.device)
        return flip_horizontally(sampling, uniform < self.p)


class Translate(_PixelMove):
    """Moves a sample by round(u · size) pixels in each direction, u uniform in [-max_shift, max_shift]."""

    type: Literal["translate"] = "translate"
    max_shift: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Largest shift, as a share of the image's height and width."""

    def move(self, sampling: Sampling, generator: torch.Generator) -> Sampling:
        import torch

        from cnn.transforms.sampling import shift

        num_images, height = sampling.rows.shape
        uniform = torch.rand((2, num_images), generator=generator, device=sampling.rows.device) * 2 - 1
        down = (uniform[0] * self.max_shift * height).round().long()
        right = (uniform[1] * self.max_shift * sampling.columns.shape[1]).round().long()
        return shift(sampling, down, right)


Augmentation = TypeAliasType(
    "Augmentation", Annotated[RandomCrop | HorizontalFlip | Translate, Field(discriminator="type")]
)


def build_augmentation(transforms: Sequence[Augmentation]) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A function of uint8 images (N, C, H, W) and a generator that gives the transformed images, of the same shape."""
    from cnn.transforms.sampling import identity, resample

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        if not transforms:
            return images
        sampling = identity(len(images), images.shape[2], images.shape[3], images.device)
        for transform in transforms:
            sampling = transform.move(sampling, generator)
        return resample(images, sampling)

    return augment
