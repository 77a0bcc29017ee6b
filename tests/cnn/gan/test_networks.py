from __future__ import annotations

import pytest
import torch

from cnn.gan.networks import ConditionalBatchNorm, Discriminator, Generator, num_halvings


@pytest.mark.parametrize(
    ("height", "width", "halvings"), [(8, 8, 1), (9, 8, 1), (16, 16, 1), (28, 28, 2), (32, 32, 2), (33, 32, 3)]
)
def test_halvings_lead_to_eight_pixels_or_fewer(height: int, width: int, halvings: int) -> None:
    assert num_halvings(height, width) == halvings


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 13), (2, 11, 40)])
def test_images_of_any_size_are_made_and_scored(shape: tuple[int, int, int]) -> None:
    labels = torch.tensor([0, 3, 1])
    images = Generator(5, 4, 4, shape)(torch.randn(3, 5), labels)
    assert images.shape == (3, *shape)
    assert images.abs().max() <= 1
    scores, logits = Discriminator(4, 4, shape)(images)
    assert scores.shape == (3,)
    assert logits.shape == (3, 4)


def test_normalization_has_a_scale_and_a_shift_of_each_class() -> None:
    norm = ConditionalBatchNorm(1, 2)
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([[2.0], [3.0]]))
        norm.shift.copy_(torch.tensor([[0.0], [10.0]]))
    x = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)  # mean 0, variance 1
    assert norm(x, torch.tensor([0, 1])).flatten().tolist() == pytest.approx([-2.0, 13.0], abs=1e-4)


def test_the_weights_of_the_discriminator_have_spectral_norm_one() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # how fast the power iteration gets there depends on the weights
        discriminator = Discriminator(4, 4, (1, 8, 8))
    for _ in range(200):
        discriminator(torch.zeros(1, 1, 8, 8))
    discriminator.eval()
    for layer in (*discriminator.convolutions, discriminator.features, discriminator.classes):
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-3)
