"""Random parameters of a batch's transforms: one value a sample, each a function of where it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnn.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Draws:
    """Where the random numbers of a batch come from.

    `samples` (N,) says which of the training split's images the batch holds; `generator` is at the position of the
    batch, `seed` is that of the whole run.
    """

    generator: torch.Generator
    samples: Tensor
    epoch: int
    seed: int

    def part(self, start: int, stop: int) -> Draws:
        """The same generator for some samples of the batch."""
        return replace(self, samples=self.samples[start:stop])

    def of(self, rows: Tensor) -> Draws:
        """The same generator for the samples of these rows."""
        return replace(self, samples=self.samples[rows])

    def uniform(self, low: float = 0.0, high: float = 1.0, *more: int) -> Tensor:
        """Uniform in [low, high), (N, *more), float32."""
        size = (len(self.samples), *more)
        return torch.empty(size, device=self.samples.device).uniform_(low, high, generator=self.generator)

    def bytes(self, *more: int) -> Tensor:
        """Uniform in 0..255, (N, *more), uint8: eight from each number of the generator, which is what takes time."""
        count = len(self.samples) * math.prod(more)
        numbers = torch.empty(-(-count // 8), dtype=torch.int64, device=self.samples.device)
        numbers.random_(-(2**63), None, generator=self.generator)
        return numbers.view(torch.uint8)[:count].view(-1, *more)

    def log_uniform(self, low: float, high: float) -> Tensor:
        """exp(u) with u uniform in [log low, log high), (N,)."""
        return self.uniform(math.log(low), math.log(high)).exp_()

    def normal(self, *more: int) -> Tensor:
        """Standard normal, (N, *more)."""
        return torch.randn((len(self.samples), *more), generator=self.generator, device=self.samples.device)

    def integers(self, low: int, high: int, *more: int) -> Tensor:
        """Uniform in low..high, both included, int64 (N, *more)."""
        size = (len(self.samples), *more)
        return torch.randint(low, high + 1, size, generator=self.generator, device=self.samples.device)

    def chance(self, p: float) -> Tensor:
        """True with probability p, (N,)."""
        return self.uniform() < p

    def sign(self) -> Tensor:
        """-1.0 or 1.0, (N,)."""
        return self.integers(0, 1).float() * 2 - 1

    def beta(self, alpha: float) -> Tensor:
        """Beta(alpha, alpha), (N,). In float64, where the gamma variates of a small alpha do not underflow to 0."""
        shape = torch.full((2, len(self.samples)), alpha, dtype=torch.float64, device=self.samples.device)
        gammas: Tensor = torch._standard_gamma(shape, generator=self.generator)
        return (gammas[0] / gammas.sum(dim=0)).float()

    def permutation(self) -> Tensor:
        """A random order of the batch's rows, int64 (N,)."""
        return torch.randperm(len(self.samples), generator=self.generator, device=self.samples.device)

    def one(self) -> Tensor:
        """One number for the whole batch, uniform in [0, 1), a scalar on the device."""
        return torch.rand((), generator=self.generator, device=self.samples.device)

    def fixed_bit(self, purpose: str) -> Tensor:
        """One fair bit for every sample, bool (N,), the same in each epoch and batch of a run.

        The mixing of splitmix64 (Steele et al., OOPSLA 2014) with signed shifts, on int64 that wraps around.
        """
        mixed = self.samples * -7046029254386353131 + derive_seed(self.seed, purpose)
        for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
            mixed = (mixed ^ (mixed >> shift)) * factor
        return ((mixed ^ (mixed >> 31)) >> 17) & 1 == 1
