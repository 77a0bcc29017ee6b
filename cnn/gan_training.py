"""The stage of a run in which its GAN is trained, before the network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from cnn.errors import TrainingError
from cnn.events import Artifact, Metrics, Progress
from cnn.export import export_weights, write
from cnn.gan.adversaries import Adversaries
from cnn.gan.judgement import Judgement, judge
from cnn.gan.mixture import Mixture
from cnn.gan.sample_sheet import sample_sheet
from cnn.generative import GAN
from cnn.randomness import derived_generator
from cnn.seeds import derive_seed
from cnn.spec import TrainingSpec


class GanTraining:
    """The GAN of a spec, and how far it is.

    Args:
        spec: of the whole run, from whose seed every number here follows.
        gan: the part of it.
        images, labels: the training split, uint8 (N, C, H, W) and int64 (N,), on the device where training happens.
        later_steps: updates of the network after this stage, which progress counts on.
    """

    def __init__(self, spec: TrainingSpec, gan: GAN, images: Tensor, labels: Tensor, later_steps: int) -> None:
        info = spec.dataset.info
        self.spec = gan
        self._seed = spec.training.seed
        self._images = images
        self._labels = labels
        self._class_names = info.labels
        self._later_steps = later_steps
        self._per_epoch = len(images) // gan.batch_size
        self.num_steps = gan.epochs * self._per_epoch
        self.step = 0
        self._adversaries = Adversaries(
            latent_dim=gan.latent_dim,
            width=gan.width,
            num_classes=info.num_classes,
            shape=info.shape,
            lr=gan.lr,
            seed=derive_seed(self._seed, "gan_initialization"),
            device=images.device,
        )
        self.mixture = Mixture(self._adversaries, labels, gan.share, spec.training.batch_size)
        self._order = (0, torch.empty(0))
        self._began = time.perf_counter()
        self._images_this_epoch = 0
        self._complaints: list[str] = []

    @classmethod
    def of(cls, spec: TrainingSpec, images: Tensor, labels: Tensor, later_steps: int) -> Self | None:
        """The stage that `spec` asks for, if it does."""
        gan = next((entry for entry in spec.augmentation if isinstance(entry, GAN)), None)
        return cls(spec, gan, images, labels, later_steps) if gan else None

    @property
    def epoch(self) -> int:
        """The epoch in which `step` lies, from 1; 0 before the first step."""
        return -(-self.step // self._per_epoch)

    @property
    def at_epoch_end(self) -> bool:
        return self.step % self._per_epoch == 0

    @property
    def complete(self) -> bool:
        return self.step == self.num_steps

    def progress(self) -> Progress:
        return Progress(self.epoch, self.step, self.spec.epochs, self.num_steps + self._later_steps)

    def advance(self) -> None:
        """One update of discriminator and generator."""
        if self.at_epoch_end:
            self._began = time.perf_counter()
            self._images_this_epoch = 0
        self.step += 1
        start = (self.step - 1) % self._per_epoch * self.spec.batch_size
        chosen = self._order_of(self.epoch)[start : start + self.spec.batch_size]
        self._images_this_epoch += len(chosen)
        self._adversaries.update(self._images[chosen], self._labels[chosen], self._randomness("gan_noise", self.step))

    def _order_of(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            generator = derived_generator(torch.device("cpu"), self._seed, "gan_order", epoch)
            self._order = (epoch, torch.randperm(len(self._images), generator=generator).to(self._images.device))
        return self._order[1]

    def _randomness(self, purpose: str, *position: int) -> torch.Generator:
        return derived_generator(self._images.device, self._seed, purpose, *position)

    def check(self) -> None:
        """Raise TrainingError when a loss up to here was not finite. Waits for the device."""
        if not self._adversaries.is_finite():
            raise TrainingError(
                "diverged", f"a loss of the GAN is not finite by step {self.step}", "user", "lower lr of the gan"
            )

    def end_epoch(self) -> Metrics:
        """The series of the epoch; after the last one, those about the generated images too."""
        generator, discriminator = self._adversaries.mean_losses()
        self._adversaries.reset_losses()
        values = {"gan_generator_loss": generator, "gan_discriminator_loss": discriminator}
        if self.complete:
            judgement = self._judge()
            self._complaints = judgement.complaints()
            values |= {
                "gan_class_agreement": judgement.class_agreement,
                "gan_diversity": judgement.diversity,
                "gan_lowest_diversity": judgement.lowest_diversity,
            }
        seconds = time.perf_counter() - self._began
        timings = {"images_per_second": self._images_this_epoch / seconds, "seconds": seconds}
        return Metrics(self.epoch, self.step, values, timings)

    def images(self, labels: Tensor, randomness: torch.Generator) -> Tensor:
        """Generated uint8 images of `labels` (N,)."""
        return self._adversaries.images(labels, randomness)

    def _judge(self) -> Judgement:
        def generate(labels: Tensor) -> Tensor:
            return self.images(labels, self._randomness("gan_judgement"))

        return judge(self._images, self._labels, generate, derive_seed(self._seed, "gan_judge"))

    @property
    def complaints(self) -> list[str]:
        """What the end of the last epoch showed to be wrong."""
        return [f"the GAN may have collapsed: {complaint}" for complaint in self._complaints]

    def export(self, folder: Path) -> list[Artifact]:
        """Write the generator's weights and a sheet with ten of its images for each class of the training split."""
        weights = export_weights(folder, "generator.safetensors", self._adversaries.generator.state_dict(), self.step)
        classes, randomness = torch.unique(self._labels), self._randomness("gan_samples")
        sheet = sample_sheet(self._adversaries, classes, self._class_names, randomness)
        return [weights, write(folder, "gan_samples.png", sheet, "image/png", self.step)]

    def tensors(self) -> dict[str, Tensor]:
        """The complete state between two updates, that of the generator alone after the last: not copies."""
        tensors = self._adversaries.tensors()
        return {key: tensor for key, tensor in tensors.items() if not self.complete or key.startswith("generator.")}

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Take over the state that `tensors` gave after `step`. Raises KeyError when a tensor is missing."""
        self.step = step
        if self.complete:
            self._adversaries.restore_generator(tensors)
        else:
            self._adversaries.restore(tensors)
