"""The minibatches of a run: a dataset in memory, and what every step takes from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnn.augmentation import Augmentation, build_augmentation
from cnn.randomness import derived_generator


class Batches:
    """Samples without replacement, in a new order each epoch, augmented; the batch of a step follows from its number.

    Args:
        images: uint8 (N, C, H, W), on the device where training happens.
        labels: int64 (N,), on the same device.
        size: samples of one optimizer update.
        drop_last: leave out the samples of an epoch that do not fill an update.
        augmentation: transforms of the images.
        seed: from which order and transforms follow.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        size: int,
        drop_last: bool,
        augmentation: Sequence[Augmentation],
        seed: int,
    ) -> None:
        self.per_epoch = len(images) // size if drop_last else -(-len(images) // size)
        if self.per_epoch == 0:
            raise ValueError(f"one step needs {size} images, but the training split has {len(images)}")
        self._images = images
        self._labels = labels
        self._size = size
        self._augment = build_augmentation(augmentation)
        self._seed = seed
        self._order = (0, torch.empty(0))

    def at(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Images and labels of update `step`, which lies in `epoch`; both count from 1 over the whole run."""
        start = (step - 1) % self.per_epoch * self._size
        chosen = self._order_of(epoch)[start : start + self._size]
        generator = derived_generator(self._images.device, self._seed, "augmentation", epoch, step)
        return self._augment(self._images[chosen], generator), self._labels[chosen]

    def _order_of(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            generator = derived_generator(torch.device("cpu"), self._seed, "order", epoch)
            order = torch.randperm(len(self._images), generator=generator)
            self._order = (epoch, order.to(self._images.device))
        return self._order[1]
