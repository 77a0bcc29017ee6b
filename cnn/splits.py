"""Division of a dataset into parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cnn.seeds import derive_seed

Indices = NDArray[np.int64]


def stratified_split(
    labels: NDArray[np.int64], fraction: float, seed: int, purpose: str = "split"
) -> tuple[Indices, Indices]:
    """Indices of the samples that stay, and of the round(fraction · N) that are held out at random.

    Each class of n gives fraction · n, rounded so that the sum is right: first down, then up where most was cut off,
    of equals in the lower class. Both results are in rising order, and together are all samples. Splits of another
    `purpose` are independent of each other under the same seed.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = fraction * counts
    quotas = np.floor(shares).astype(np.int64)
    missing = round(fraction * len(labels)) - int(quotas.sum())
    quotas[np.argsort(quotas - shares, kind="stable")[:missing]] += 1
    held_out = np.zeros(len(labels), dtype=bool)
    for label, quota in zip(classes.tolist(), quotas.tolist(), strict=True):
        members = np.flatnonzero(labels == label)
        # Of numpy's random numbers only these raw ones are promised to stay the same in all versions.
        keys = np.random.PCG64(derive_seed(seed, purpose, label)).random_raw(len(members))
        held_out[members[np.argsort(keys, kind="stable")[:quota]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def train_val_split(
    labels: NDArray[np.int64], val_fraction: float, num_train: int | None, seed: int
) -> tuple[Indices, Indices]:
    """Indices of the training split and of the validation split, in rising order.

    With `num_train`, only so many of the samples that are not for validation are in the training split.
    """
    kept, held_out = stratified_split(labels, val_fraction, seed)
    if num_train is not None:
        _, chosen = stratified_split(labels[kept], num_train / len(kept), seed, "subset")
        kept = kept[chosen]
    return kept, held_out
