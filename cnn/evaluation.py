"""How good weights are on a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

MAX_BATCH = {"cpu": 250, "cuda": 1000}
"""Activations of larger batches leave a CPU's caches, and malloc takes them anew from the system each time."""
MAX_BATCH_VALUES = {"cpu": 2_000_000, "cuda": 4_000_000}
"""Pixels of a batch, which bound the memory that large images take."""
TOP = 5
"""A top-5 accuracy says something where there are more classes."""


@dataclass(frozen=True, slots=True)
class Score:
    """Mean cross entropy, in float64 from the logits, and shares of samples.

    The loss is not finite where the logits are not.
    """

    loss: float
    accuracy: float
    """Of those whose largest logit is the right one."""
    top5_accuracy: float | None
    """Of those whose right logit is among the five largest; None for five classes or fewer."""
    predicted: Tensor = field(compare=False, repr=False)
    """The class with the largest logit of each sample, (N,)."""
    confidence: Tensor = field(compare=False, repr=False)
    """The probability that the softmax gives that class, in float64, (N,)."""


@torch.inference_mode()
def evaluate(
    network: nn.Module, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor, *, mirror: bool = False
) -> Score:
    """Score of `network` with `weights`, keys as in its state dict, on uint8 images (N, C, H, W) and labels (N,).

    With `mirror`, of the mean of the logits of each image and of its mirror image, left to right.
    """
    training = network.training
    network.eval()
    device = images.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    in_top5 = torch.zeros((), dtype=torch.int64, device=device)
    # Made before the batches: what small things stay among their activations would cut malloc's heap to pieces.
    predicted = torch.empty(len(images), dtype=torch.int64, device=device)
    confidence = torch.empty(len(images), dtype=torch.float64, device=device)
    size = max(1, min(MAX_BATCH[device.type], MAX_BATCH_VALUES[device.type] // images[0].numel()))
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        logits = _logits(network, weights, images[part], mirror=mirror)
        precise = logits.double()
        loss += cross_entropy(precise, labels[part], reduction="sum")
        predicted[part] = logits.argmax(dim=1)
        confidence[part] = precise.softmax(dim=1).amax(dim=1)
        if logits.shape[1] > TOP:
            in_top5 += (logits.topk(TOP, dim=1).indices == labels[part, None]).sum()
    network.train(training)
    accuracy = int((predicted == labels).sum()) / len(labels)
    top5_accuracy = in_top5.item() / len(labels) if logits.shape[1] > TOP else None
    return Score(loss.item() / len(labels), accuracy, top5_accuracy, predicted, confidence)


def _logits(network: nn.Module, weights: Mapping[str, Tensor], images: Tensor, *, mirror: bool) -> Tensor:
    inputs = images.contiguous(memory_format=torch.channels_last)
    logits: Tensor = functional_call(network, dict(weights), (inputs,))
    if mirror:
        logits = (logits + functional_call(network, dict(weights), (inputs.flip(3),))) / 2
    return logits
