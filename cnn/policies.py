"""Augmentation policies: which operation acts on a sample is drawn too. To add one: see `augmentation.py`.

The operations are identity, shear and translation along x and y, rotation, brightness, contrast, saturation (on RGB
alone), sharpness, posterize, solarize, autocontrast and equalize. Float32 comes out; what comes from outside is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.transform import Pixelwise

if TYPE_CHECKING:
    from torch import Tensor

    from cnn.transforms.draws import Draws

MAX_MAGNITUDE = 30


class RandAugment(Pixelwise):
    """`num_ops` operations in turn, each drawn uniformly, at one magnitude with a random sign (Cubuk et al., 2020).

    Magnitude 30 is a slope of 0.3, 45 % of the side, 30 degrees, a factor of 1 ± 0.9, 4 bits, or threshold 0.
    """

    type: Literal["rand_augment"] = "rand_augment"
    num_ops: Annotated[int, Field(ge=0, le=10)] = 2
    """Operations of a sample, one after the other."""
    magnitude: Annotated[int, Field(ge=0, le=MAX_MAGNITUDE)] = 9
    """How strong they are, 0 to 30."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.policies import NARROW, apply_drawn, operations

        images, among = images.float(), operations(images.shape[1])
        for _ in range(self.num_ops):
            drawn = draws.integers(0, len(among) - 1)
            strength = draws.sign() * (self.magnitude / MAX_MAGNITUDE)
            images = apply_drawn(images, drawn, strength, NARROW, among)
        return images


class TrivialAugment(Pixelwise):
    """One operation, drawn uniformly, at a magnitude uniform in 0..30: the wide space of Müller & Hutter, ICCV 2021.

    Magnitude 30 is a slope of 0.99, 32 pixels, 135 degrees, a factor of 1 ± 0.99, 6 bits, or threshold 0.
    """

    type: Literal["trivial_augment"] = "trivial_augment"

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.policies import WIDE, apply_drawn, operations

        among = operations(images.shape[1])
        drawn = draws.integers(0, len(among) - 1)
        strength = draws.sign() * draws.integers(0, MAX_MAGNITUDE) / MAX_MAGNITUDE
        return apply_drawn(images.float(), drawn, strength, WIDE, among)
