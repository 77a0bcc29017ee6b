from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnn.gan.adversaries import Adversaries, discriminator_loss, generator_loss
from cnn.gan.mixture import Mixture
from cnn.gan.sample_sheet import sample_sheet
from cnn.sheets import GAP, LABEL_WIDTH, MIN_CELL

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def adversaries_of(seed: int = 0) -> Adversaries:
    return Adversaries(latent_dim=8, width=4, num_classes=3, shape=(1, 8, 8), lr=0.01, seed=seed, device=CPU)


def batch(step: int) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (12, 1, 8, 8), generator=seeded(step), dtype=torch.uint8)
    return images, torch.arange(12) % 3


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([0.0, math.log(3)]), torch.tensor([math.log(3)])
    # log 2 and log 4/3 for the real ones; log 4 for a fake that passes.
    expected = (math.log(2) + math.log(4 / 3)) / 2 + math.log(4)
    assert discriminator_loss(real, fake).item() == pytest.approx(expected, abs=1e-6)
    assert generator_loss(fake).item() == pytest.approx(math.log(4 / 3), abs=1e-6)


def test_restored_adversaries_go_on_with_the_same_bits() -> None:
    one, other = adversaries_of(), adversaries_of(seed=7)
    for step in range(3):
        one.update(*batch(step), seeded(step))
    other.restore({name: tensor.detach().clone() for name, tensor in one.tensors().items()})
    for step in range(3, 6):
        for each in (one, other):
            each.update(*batch(step), seeded(step))
    expected, got = one.tensors(), other.tensors()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert one.mean_losses() == other.mean_losses()


def test_images_are_bytes_that_follow_from_the_generator() -> None:
    adversaries = adversaries_of()
    adversaries.update(*batch(0), seeded())
    state = {name: tensor.clone() for name, tensor in adversaries.tensors().items()}
    labels = torch.tensor([0, 1, 2, 2])
    images = adversaries.images(labels, seeded(1))
    assert (images.shape, images.dtype) == ((4, 1, 8, 8), torch.uint8)
    assert torch.equal(images, adversaries.images(labels, seeded(1)))
    assert not torch.equal(images[2], images[3])
    assert all(torch.equal(state[name], tensor) for name, tensor in adversaries.tensors().items())
    other = adversaries_of(seed=9)
    other.restore_generator(state)
    assert torch.equal(images, other.images(labels, seeded(1)))


def test_a_loss_that_is_not_finite_is_seen() -> None:
    adversaries = adversaries_of()
    assert adversaries.is_finite()
    adversaries.generator.first.weight.data.fill_(float("nan"))
    adversaries.update(*batch(0), seeded())
    assert not adversaries.is_finite()


@pytest.mark.parametrize(
    ("share", "num_images", "places"),
    [
        (0.25, 8, [0, 1]),  # one minibatch
        (0.25, 20, [0, 1, 8, 9, 16]),  # two, and one of four
        (0.3, 10, [0, 1, 8]),  # 2.4 and 0.6
        (0.3125, 8, [0, 1, 2]),  # 2.5 is rounded upwards
        (1.0, 3, [0, 1, 2]),
        (0.01, 8, []),
    ],
)
def test_the_share_of_each_minibatch_is_exact(share: float, num_images: int, places: list[int]) -> None:
    labels = torch.zeros(num_images, dtype=torch.int64)
    mixture = Mixture(adversaries_of(), torch.tensor([2]), share, batch_size=8)
    assert mixture.places(num_images).tolist() == places
    real = torch.full((num_images, 1, 8, 8), 255, dtype=torch.uint8)
    images, mixed = mixture.mix(real, labels, seeded())
    assert mixed.nonzero().flatten().tolist() == places
    assert [n for n in range(num_images) if not torch.equal(images[n], real[n])] == places
    assert (real == 255).all()
    assert (labels == 0).all()


def test_labels_are_distributed_like_those_of_the_training_split() -> None:
    labels = torch.tensor([0] * 1 + [1] * 3 + [2] * 6)
    mixture = Mixture(adversaries_of(), labels, 1.0, batch_size=4000)
    _, drawn = mixture.mix(torch.zeros(4000, 1, 8, 8, dtype=torch.uint8), torch.zeros(4000).long(), seeded())
    # Standard deviations are below 32.
    assert torch.bincount(drawn).tolist() == pytest.approx([400, 1200, 2400], abs=130)


def test_the_sheet_shows_ten_images_of_each_class() -> None:
    adversaries, names = adversaries_of(), ["shirt", "coat", "bag"]
    content = sample_sheet(adversaries, torch.tensor([0, 2]), names, seeded(3))
    assert content == sample_sheet(adversaries, torch.tensor([0, 2]), names, seeded(3))
    pixels = np.asarray(Image.open(BytesIO(content)).convert("L"))
    step = MIN_CELL + GAP  # 8 pixels are enlarged to MIN_CELL
    assert pixels.shape == (2 * step + GAP, LABEL_WIDTH + 10 * step + GAP)
    images = adversaries.images(torch.tensor([0, 2]).repeat_interleave(10), seeded(3))
    first, last = pixels[GAP:, LABEL_WIDTH:], pixels[GAP + step :, LABEL_WIDTH + 9 * step :]
    assert (first[3:MIN_CELL:6, 3:MIN_CELL:6] == images[0, 0].numpy()).all()
    assert (last[3:MIN_CELL:6, 3:MIN_CELL:6] == images[19, 0].numpy()).all()
    assert pixels[:step, :LABEL_WIDTH].min() == 0  # the label
