"""A small network and its gradient on plain float64 tensors, without modules, optimizers or anything of `cnn`'s."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cnn.spec import TrainingSpec

BATCH = 32

Gradient = Callable[[list[Tensor]], list[Tensor]]

LAYERS = [
    {"type": "conv2d", "name": "conv1", "out_channels": 4, "kernel_size": 3, "padding": "same"},
    {"type": "relu"},
    {"type": "max_pool2d", "kernel_size": 2},
    {"type": "flatten"},
    {"type": "linear", "name": "fc1", "out_features": 10},
]


def small_spec(**parts: Any) -> TrainingSpec:
    """The network that `loss_of` computes, on digits; `parts` replace or add parts of the spec."""
    content = {
        "dataset": {"type": "digits"},
        "model": {"type": "layers", "layers": LAYERS},
        "optimizer": {"type": "sgd"},
        "training": {"batch_size": BATCH},
        **parts,
    }
    return TrainingSpec.model_validate_json(json.dumps(content))


def standardized(images: Tensor, all_images: Tensor) -> Tensor:
    """With statistics rounded to float32, as they stand in the file of the weights."""
    pixels = all_images.double()
    mean, std = pixels.mean().float().double(), pixels.std(correction=0).float().double()
    return (images - mean) / std


def loss_of(weights: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the network with the weights kernel, its bias, matrix, its bias."""
    kernel, kernel_bias, matrix, bias = weights
    x = F.max_pool2d(F.conv2d(images, kernel, kernel_bias, padding=1).clamp(min=0), 2)
    logits = x.reshape(len(x), -1) @ matrix.T + bias
    chosen = logits[torch.arange(len(labels)), labels]
    return (logits.exp().sum(dim=1).log() - chosen).mean()


def gradient_of(images: Tensor, labels: Tensor) -> Gradient:
    """The gradient of `loss_of` as a function of the weights."""

    def gradient(weights: list[Tensor]) -> list[Tensor]:
        leaves = [weight.detach().requires_grad_() for weight in weights]
        return list(torch.autograd.grad(loss_of(leaves, images, labels), leaves))

    return gradient
