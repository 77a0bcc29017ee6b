"""Feature-space augmentation: new features of a class from those of its samples (DeVries & Taylor, ICLR 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1000


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Row n of `indices` (N, K) holds the nearest others of n's class, the nearest first; `counts` (N,) how many."""

    indices: Tensor
    counts: Tensor

    def of(self, rows: Tensor) -> Neighbors:
        """Those of some samples; a row of -1 is a sample without neighbours."""
        known = rows.clamp(min=0)
        return Neighbors(self.indices[known], self.counts[known].masked_fill(rows < 0, 0))

    def first(self, number: int) -> Neighbors:
        """At most so many of them."""
        return Neighbors(self.indices[:, :number], self.counts.clamp(max=number))

    def draw(self, generator: torch.Generator) -> Tensor:
        """One neighbour of each sample, all equally likely, (N,); any index where there is none."""
        uniform = torch.rand(len(self.counts), generator=generator, device=self.counts.device)
        place = (uniform * self.counts).long().clamp(max=self.indices.shape[1] - 1)
        return self.indices.gather(1, place[:, None])[:, 0]


def nearest_in_class(features: Tensor, labels: Tensor, num_neighbors: int) -> Neighbors:
    """The `num_neighbors` nearest features (N, D) of the same class by Euclidean distance, not counting oneself."""
    others = labels[:, None] != labels[None, :]
    others.fill_diagonal_(True)
    distances = torch.cdist(features, features).masked_fill(others, torch.inf)
    nearest = distances.topk(min(num_neighbors, len(labels)), largest=False, sorted=True)
    return Neighbors(nearest.indices, nearest.values.isfinite().sum(dim=1))


def nearest_class_by_class(features: Tensor, labels: Tensor, num_neighbors: int) -> Neighbors:
    """The same for many samples: the distances within one class at a time, of `ROWS` samples at a time."""
    indices = torch.zeros(len(labels), num_neighbors, dtype=torch.int64, device=labels.device)
    counts = torch.zeros_like(labels)
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero()[:, 0]
        found = min(num_neighbors, len(members) - 1)
        if found == 0:
            continue
        own = torch.arange(len(members), device=labels.device)
        for rows in torch.split(own, ROWS):
            distances = torch.cdist(features[members[rows]], features[members])
            distances[torch.arange(len(rows), device=labels.device), rows] = torch.inf
            nearest = distances.topk(found, largest=False, sorted=True).indices
            indices[members[rows], :found] = members[nearest]
        counts[members] = found
    return Neighbors(indices, counts)


def interpolate(c_j: Tensor, c_k: Tensor, weight: float) -> Tensor:
    """c' = (c_k - c_j) λ + c_j."""
    return (c_k - c_j) * weight + c_j


def extrapolate(c_j: Tensor, c_k: Tensor, weight: float) -> Tensor:
    """c' = (c_j - c_k) λ + c_j."""
    return (c_j - c_k) * weight + c_j


def add_noise(c: Tensor, std: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """c' = c + γ X with X_i ~ N(0, σ_i²); `std` holds σ (D,)."""
    normal = torch.randn(c.shape, generator=generator, device=c.device, dtype=c.dtype)
    return c + noise * std * normal
