"""How good weights are on a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

MAX_BATCH = 1000
MAX_BATCH_VALUES = 4_000_000
"""Pixels of a batch, which bound the memory that large images take."""


@dataclass(frozen=True, slots=True)
class Score:
    """Mean cross entropy, in float64 from the logits, and the share of samples whose largest logit is right."""

    loss: float
    accuracy: float


@torch.inference_mode()
def evaluate(network: nn.Module, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Score:
    """Score of `network` with `weights`, keys as in its state dict, on uint8 images (N, C, H, W) and labels (N,)."""
    training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    size = max(1, min(MAX_BATCH, MAX_BATCH_VALUES // images[0].numel()))
    for batch, targets in zip(torch.split(images, size), torch.split(labels, size), strict=True):
        inputs = batch.contiguous(memory_format=torch.channels_last)
        logits = functional_call(network, dict(weights), (inputs,))
        loss += cross_entropy(logits.double(), targets, reduction="sum")
        correct += (logits.argmax(dim=1) == targets).sum()
    network.train(training)
    return Score(loss.item() / len(labels), int(correct.item()) / len(labels))
