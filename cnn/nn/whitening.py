"""Whitening of image patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, unfold


class WhiteningConv2d(nn.Module):
    """A convolution with constant filters; see `cnn.whitening.WhiteningConv2d`."""

    weight: Tensor

    def __init__(self, num_channels: int, kernel_size: int) -> None:
        super().__init__()
        num_filters = 2 * num_channels * kernel_size**2
        self.register_buffer("weight", torch.zeros(num_filters, num_channels, kernel_size, kernel_size))

    def forward(self, images: Tensor) -> Tensor:
        return conv2d(images, self.weight, padding=self.weight.shape[-1] // 2)


def whitening_filters(images: Tensor, kernel_size: int, eps: float) -> Tensor:
    """Eigenvectors of the covariance of all patches of `images` (N, C, H, W), over √(λ + eps), and their negatives.

    Shape (2 · C · kernel_size², C, kernel_size, kernel_size), the directions of most variance first; computed in
    float64 on the CPU. The sign of an eigenvector is free, and both signs are there.
    """
    num_values = images.shape[1] * kernel_size**2
    count = 0
    total = torch.zeros(num_values, dtype=torch.float64)
    product = torch.zeros(num_values, num_values, dtype=torch.float64)
    for chunk in torch.split(images, 256):  # all patches at once would be kernel_size² times the images
        patches = unfold(chunk.double().cpu(), kernel_size).transpose(0, 1).flatten(1)
        count += patches.shape[1]
        total += patches.sum(dim=1)
        product += patches @ patches.T
    mean = total / count
    eigenvalues, eigenvectors = torch.linalg.eigh(product / count - torch.outer(mean, mean))
    filters = (eigenvectors * (eigenvalues.clamp(min=0) + eps).rsqrt()).T.flip(0)
    return torch.cat([filters, -filters]).reshape(-1, images.shape[1], kernel_size, kernel_size).float()
