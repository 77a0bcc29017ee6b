"""A class-conditional convolutional generator and its discriminator, for images of any side from 8 pixels on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

COARSEST_SIDE = 8
SLOPE = 0.2
FEATURES = 4


class ConditionalBatchNorm(nn.Module):
    """γ_y · (x - mean) / std + β_y, with a γ and a β for each class y (de Vries et al., NIPS 2017)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Parameter(torch.ones(num_classes, channels))
        self.shift = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = self.norm(x)
        return x * self.scale[labels, :, None, None] + self.shift[labels, :, None, None]


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) and labels (N,) to images (N, C, H, W) in -1..1.

    As in DCGAN (Radford et al., ICLR 2016), a coarse picture is doubled in size by transposed convolutions; where that
    gives a larger one than asked for, its right and lower border is cut off. Each doubling halves the channels, down
    to `width` before the last one.
    """

    def __init__(self, latent_dim: int, width: int, num_classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width_ = shape
        doublings = num_halvings(height, width_)
        self._image = height, width_
        self._coarse = -(-height // 2**doublings), -(-width_ // 2**doublings)
        sizes = [width * 2 ** (doublings - 1 - level) for level in range(doublings)]
        self.first = nn.Linear(latent_dim, sizes[0] * math.prod(self._coarse))
        self.class_shift = nn.Embedding(num_classes, sizes[0])
        self.norms = nn.ModuleList(ConditionalBatchNorm(size, num_classes) for size in sizes)
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(size, target, 4, stride=2, padding=1)
            for size, target in zip(sizes, [*sizes[1:], channels], strict=True)
        )

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        x = self.first(latent).unflatten(1, (-1, *self._coarse)) + self.class_shift(labels)[:, :, None, None]
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = convolution(norm(x, labels).relu())
        height, width = self._image
        return torch.tanh(x[:, :, :height, :width])


class Discriminator(nn.Module):
    """Images (N, C, H, W) in -1..1 to scores (N,), high for real ones, and logits (N, classes) of what they show.

    Both are dense layers on `FEATURES` · width features. The second is the auxiliary classifier of Odena et al. (ICML
    2017), through which the generator learns its classes. Every weight is divided by its spectral norm, which one power
    iteration a pass estimates (Miyato et al., ICLR 2018).
    """

    def __init__(self, width: int, num_classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, *sides = shape
        sizes = [width * 2**level for level in range(num_halvings(*sides))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(source, size, 3, stride=2, padding=1)
            for source, size in zip([channels, *sizes[:-1]], sizes, strict=True)
        )
        coarse = [-(-side // 2 ** len(sizes)) for side in sides]
        self.features = nn.Linear(sizes[-1] * math.prod(coarse), FEATURES * width)
        self.score = nn.Linear(FEATURES * width, 1)
        self.classes = nn.Linear(FEATURES * width, num_classes)
        for layer in (*self.convolutions, self.features, self.score, self.classes):
            spectral_norm(layer)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images
        for convolution in self.convolutions:
            x = leaky_relu(convolution(x), SLOPE)
        features = leaky_relu(self.features(x.flatten(1)), SLOPE)
        return self.score(features)[:, 0], self.classes(features)


def num_halvings(height: int, width: int) -> int:
    """How often both sides are halved until the larger one is at most `COARSEST_SIDE`, but once at least."""
    return max(1, math.ceil(math.log2(max(height, width) / COARSEST_SIDE)))
