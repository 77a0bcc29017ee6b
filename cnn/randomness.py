"""Every random number as a function of (seed, purpose, position): nothing is replayed or saved to continue a run."""

from __future__ import annotations

import torch
from torch import nn

from cnn.seeds import derive_seed


def derived_generator(device: torch.device, seed: int, purpose: str, *position: int) -> torch.Generator:
    """A generator on `device` for the numbers of one purpose at one position.

    Torch's CPU generator uses the lower 32 bits of a seed, so two positions of a long run may draw the same numbers.
    """
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *position))


class StepGenerator:
    """One generator for the numbers of one purpose, moved to the position of each step."""

    def __init__(self, device: torch.device, seed: int, purpose: str) -> None:
        self.generator = torch.Generator(device)
        self._seed = seed
        self._purpose = purpose

    def seek(self, epoch: int, step: int) -> None:
        """From here on, draw the numbers of this position."""
        self.generator.manual_seed(derive_seed(self._seed, self._purpose, epoch, step))


def attach_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let every layer that draws random numbers, those with an attribute `generator`, draw them from this one."""
    for module in network.modules():
        if hasattr(module, "generator"):
            module.generator = generator  # type: ignore[assignment]
