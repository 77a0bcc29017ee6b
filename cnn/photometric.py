"""Photometric augmentation against lighting bias. To add one: write its class, then name it in `augmentation.py`.

Values are in 0..255 and float32 comes out, without rounding. They act one after the other, and values that leave 0..255
are clamped after each, as in torchvision; so they do not compose into one colour matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cnn.base import Probability, Shape, ShapeError
from cnn.transform import Pixelwise

if TYPE_CHECKING:
    from torch import Tensor

    from cnn.transforms.draws import Draws

Strength = Annotated[float, Field(ge=0, le=1)]
HueShift = Annotated[float, Field(ge=0, le=0.5)]


def _require_rgb(shape: Shape) -> None:
    if shape[0] != 3:
        raise ShapeError(f"needs images with the three channels red, green and blue, these have {shape[0]}")


class Brightness(Pixelwise):
    """x' = f · x, f uniform in [1 - strength, 1 + strength]."""

    type: Literal["brightness"] = "brightness"
    strength: Strength = 0.2
    """Largest change of the factor f."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.color import brightness

        return brightness(images, draws.uniform(1 - self.strength, 1 + self.strength))


class Contrast(Pixelwise):
    """x' = f · x + (1 - f) · m, m the mean grey value of the image, f uniform in [1 - strength, 1 + strength]."""

    type: Literal["contrast"] = "contrast"
    strength: Strength = 0.2
    """Largest change of the factor f."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.color import contrast

        return contrast(images, draws.uniform(1 - self.strength, 1 + self.strength))


class Saturation(Pixelwise):
    """x' = f · x + (1 - f) · g, g = 0.2989 R + 0.587 G + 0.114 B of the pixel, f uniform in 1 ± strength; RGB alone."""

    type: Literal["saturation"] = "saturation"
    strength: Strength = 0.2
    """Largest change of the factor f."""

    def check(self, shape: Shape) -> None:
        _require_rgb(shape)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.color import saturation

        return saturation(images, draws.uniform(1 - self.strength, 1 + self.strength))


class Hue(Pixelwise):
    """Turns the hue of HSV by u of a full circle, u uniform in [-max_shift, max_shift]; RGB alone."""

    type: Literal["hue"] = "hue"
    max_shift: HueShift = 0.05
    """Largest turn, as a share of the circle."""

    def check(self, shape: Shape) -> None:
        _require_rgb(shape)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.color import hue

        return hue(images, draws.uniform(-self.max_shift, self.max_shift))


class Gamma(Pixelwise):
    """x' = 255 · (x / 255)^γ, γ = exp(u) with u uniform between the logarithms of the two ends."""

    type: Literal["gamma"] = "gamma"
    min_gamma: Annotated[float, Field(ge=0.05, le=1)] = 0.7
    """Smallest exponent; below 1 makes brighter."""
    max_gamma: Annotated[float, Field(ge=1, le=20)] = 1.5
    """Largest exponent."""

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.color import gamma

        return gamma(images, draws.log_uniform(self.min_gamma, self.max_gamma))


class PCALighting(Pixelwise):
    """x' = x + 255 · Σ_i α_i λ_i v_i, α_i ~ N(0, std²), one α a sample (Krizhevsky et al., NeurIPS 2012); RGB alone.

    λ and v are the eigenvalues and eigenvectors of the covariance of ImageNet's pixels, as everybody uses them.
    """

    type: Literal["pca_lighting"] = "pca_lighting"
    std: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Standard deviation of the coefficients α."""

    def check(self, shape: Shape) -> None:
        _require_rgb(shape)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.color import add_light

        return add_light(images, draws.normal(3) * self.std)


class Grayscale(Pixelwise):
    """Puts the grey value 0.2989 R + 0.587 G + 0.114 B into all three channels with probability `p`; RGB alone."""

    in_chunks: ClassVar[bool] = False
    type: Literal["grayscale"] = "grayscale"
    p: Probability = 0.1
    """Probability that a sample loses its colour."""

    def check(self, shape: Shape) -> None:
        _require_rgb(shape)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        from cnn.transforms.color import grayscale

        return grayscale(images, draws.chance(self.p))


class ColorJitter(Pixelwise):
    """brightness, contrast, saturation and hue in this order, each left out at 0; the last two need RGB.

    torchvision's ColorJitter draws the order too.
    """

    type: Literal["color_jitter"] = "color_jitter"
    brightness: Strength = 0.2
    """`strength` of brightness."""
    contrast: Strength = 0.2
    """`strength` of contrast."""
    saturation: Strength = 0.0
    """`strength` of saturation."""
    hue: HueShift = 0.0
    """`max_shift` of hue."""

    def check(self, shape: Shape) -> None:
        if self.saturation or self.hue:
            try:
                _require_rgb(shape)
            except ShapeError as error:
                raise ShapeError(f"saturation or hue {error}") from error

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        parts: list[Pixelwise] = []
        if self.brightness:
            parts.append(Brightness(strength=self.brightness))
        if self.contrast:
            parts.append(Contrast(strength=self.contrast))
        if self.saturation:
            parts.append(Saturation(strength=self.saturation))
        if self.hue:
            parts.append(Hue(max_shift=self.hue))
        for part in parts:
            images = part.apply(images, draws)
        return images
