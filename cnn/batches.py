"""The minibatches of a run: a dataset in memory, and what every step takes from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnn.augmentation import Augmentation, build_augmentation
from cnn.gan.mixture import Mixture
from cnn.randomness import StepGenerator, derived_generator
from cnn.transforms.draws import Draws


class Batches:
    """Samples without replacement, in a new order each epoch, augmented; the batch of a step follows from its number.

    Args:
        images: uint8 (N, C, H, W), on the device where training happens.
        labels: int64 (N,), on the same device.
        size: samples of one optimizer update.
        drop_last: leave out the samples of an epoch that do not fill an update.
        augmentation: transforms of the images, and of the labels where they mix.
        num_classes: classes of the dataset.
        seed: from which order and transforms follow.

    With a `mixture`, generated images take the places of some.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        size: int,
        drop_last: bool,
        augmentation: Sequence[Augmentation],
        num_classes: int,
        seed: int,
    ) -> None:
        self.per_epoch = len(images) // size if drop_last else -(-len(images) // size)
        if self.per_epoch == 0:
            raise ValueError(f"one step needs {size} images, but the training split has {len(images)}")
        self._images = images
        self._labels = labels
        self._size = size
        self._augment = build_augmentation(augmentation, num_classes)
        self._seed = seed
        self._random = StepGenerator(images.device, seed, "augmentation")
        self.mixture: Mixture | None = None
        self._order = (0, torch.empty(0))

    def at(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Images and targets of update `step`, which lies in `epoch`; both count from 1 over the whole run.

        Targets are labels (N,), or probabilities (N, num_classes) where augmentation mixes.
        """
        chosen = self._chosen(epoch, step)
        # Which copies whole images, unlike indexing.
        images, labels = self._images.index_select(0, chosen), self._labels.index_select(0, chosen)
        if self.mixture:
            randomness = derived_generator(images.device, self._seed, "generated", epoch, step)
            images, labels = self.mixture.mix(images, labels, randomness)
        self._random.seek(epoch, step)
        draws = Draws(self._random.generator, chosen, epoch, self._seed)
        return self._augment(images, labels, draws)

    def samples(self, epoch: int, step: int) -> Tensor:
        """Places in the training split of the images of update `step`, int64; -1 for generated ones."""
        chosen = self._chosen(epoch, step)
        return chosen.index_fill(0, self.mixture.places(len(chosen)), -1) if self.mixture else chosen

    def _chosen(self, epoch: int, step: int) -> Tensor:
        start = (step - 1) % self.per_epoch * self._size
        return self._order_of(epoch)[start : start + self._size]

    def _order_of(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            generator = derived_generator(torch.device("cpu"), self._seed, "order", epoch)
            order = torch.randperm(len(self._images), generator=generator)
            self._order = (epoch, order.to(self._images.device))
        return self._order[1]
