"""Minibatches of which a share is generated."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.gan.adversaries import Adversaries


class Mixture:
    """Puts generated images in the place of real ones.

    Args:
        adversaries: their generator makes the images.
        labels: of the training split; the label of a generated image is that of a training image drawn at random.
        share: of each minibatch that is generated, rounded to whole images, a half upwards.
        batch_size: images of a minibatch.

    A minibatch keeps its size: its first images give way, and are not seen in this epoch.
    """

    def __init__(self, adversaries: Adversaries, labels: Tensor, share: float, batch_size: int) -> None:
        self._adversaries = adversaries
        self._labels = labels
        self._share = share
        self._batch_size = batch_size
        self._places: dict[int, Tensor] = {}

    def places(self, num_images: int) -> Tensor:
        """Those, in rising order, of the generated ones among `num_images`, those of one or more minibatches."""
        if num_images not in self._places:  # to copy them to a GPU in every step would be to wait for it
            self._places[num_images] = self._find_places(num_images)
        return self._places[num_images]

    def _find_places(self, num_images: int) -> Tensor:
        places = torch.arange(num_images)
        starts = places // self._batch_size * self._batch_size
        sizes = (num_images - starts).clamp(max=self._batch_size)
        return places[places - starts < (self._share * sizes.double() + 0.5).floor()].to(self._labels.device)

    def mix(self, images: Tensor, labels: Tensor, randomness: torch.Generator) -> tuple[Tensor, Tensor]:
        """Real uint8 images (N, C, H, W) and labels (N,) with the generated ones among them: new tensors."""
        places = self.places(len(images))
        if not len(places):
            return images, labels
        drawn = torch.randint(len(self._labels), (len(places),), generator=randomness, device=labels.device)
        chosen = self._labels[drawn]
        made = self._adversaries.images(chosen, randomness)
        return images.index_copy(0, places, made), labels.index_copy(0, places, chosen)
