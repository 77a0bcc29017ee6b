"""Whether a generator collapsed: do its images look like their class, and do they differ from each other?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnn.optim.adam import Adam

BATCH = 64
MAX_STEPS = 600
PASSES = 20
LR = 2e-3
SAMPLES = 50
"""Generated images of each class that are judged, and as many real ones."""
MIN_AGREEMENT = 0.5
MIN_DIVERSITY = 0.5
MIN_CLASS_DIVERSITY = 0.25


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a generator.

    `class_agreement` is the share of generated images that a classifier, trained on real images alone, takes for their
    class; `real_agreement` the same share of the real images. The diversity of class c is

        Σ_{i≠j} ‖g_i - g_j‖₂ / Σ_{i≠j} ‖r_i - r_j‖₂

    over n generated images g and n real ones r of the class, as vectors of pixels: 1 where they differ as much as real
    images do, 0 where all are the same. `diversity` is its mean over the classes, `lowest_diversity` that of the class
    `lowest_class`.
    """

    class_agreement: float
    real_agreement: float
    diversity: float
    lowest_diversity: float
    lowest_class: int

    def complaints(self) -> list[str]:
        """What is below its threshold, in words."""
        found = []
        if self.class_agreement < MIN_AGREEMENT * self.real_agreement:
            found.append(
                f"a classifier takes {self.class_agreement:.3f} of its images for their class, of real ones "
                f"{self.real_agreement:.3f} (expected at least {MIN_AGREEMENT} times as many)"
            )
        if self.diversity < MIN_DIVERSITY:
            found.append(
                f"its images differ {self.diversity:.3f} times as much as real ones ({MIN_DIVERSITY} expected)"
            )
        if self.lowest_diversity < MIN_CLASS_DIVERSITY:
            found.append(
                f"those of class {self.lowest_class} differ {self.lowest_diversity:.3f} times as much "
                f"({MIN_CLASS_DIVERSITY} expected)"
            )
        return found


def judge(images: Tensor, labels: Tensor, generate: Callable[[Tensor], Tensor], seed: int) -> Judgement:
    """Judge the images that `generate` makes of labels (N,), uint8 (N, C, H, W), beside the real `images`.

    Classes with fewer than two images, or with only equal ones, have no diversity. `seed` decides about the classifier.
    """
    randomness = torch.Generator().manual_seed(seed)
    wanted, chosen = [], []
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero()[:, 0].cpu()
        members = members[torch.randperm(len(members), generator=randomness)[:SAMPLES]]
        chosen.append(members)
        wanted.append(torch.full_like(members, label))
    real, targets = images[torch.cat(chosen).to(images.device)], torch.cat(wanted).to(labels.device)
    generated = generate(targets)
    classifier = _classifier(images, labels, seed)
    diversities = {}
    for label in torch.unique(targets).tolist():
        spread = _spread(real[targets == label])
        if spread > 0:
            diversities[label] = _spread(generated[targets == label]) / spread
    lowest = min(diversities, key=diversities.__getitem__)
    return Judgement(
        class_agreement=_agreement(classifier, generated, targets),
        real_agreement=_agreement(classifier, real, targets),
        diversity=sum(diversities.values()) / len(diversities),
        lowest_diversity=diversities[lowest],
        lowest_class=lowest,
    )


def _spread(images: Tensor) -> float:
    """The sum of the distances between all pairs."""
    pixels = images.flatten(1).double()
    return torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist").sum().item()


@torch.no_grad()
def _agreement(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    predicted = [classifier(_scaled(part)).argmax(dim=1) for part in torch.split(images, BATCH)]
    return (torch.cat(predicted) == labels).double().mean().item()


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _classifier(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """A small convolutional network, trained by Adam on real images."""
    channels, height, width = images.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), int(labels.max()) + 1),
        ).to(images.device)
    optimizer = Adam(network.parameters(), LR, betas=(0.9, 0.999))
    randomness = torch.Generator().manual_seed(seed)
    for _ in range(min(MAX_STEPS, PASSES * -(-len(labels) // BATCH))):
        batch = torch.randint(len(labels), (BATCH,), generator=randomness).to(images.device)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(_scaled(images[batch])), labels[batch])
        torch.autograd.backward(loss)
        optimizer.step()
    return network
