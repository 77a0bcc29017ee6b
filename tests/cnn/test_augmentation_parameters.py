"""The random parameters of the augmentation, statistically: what is drawn for 4000 samples of one batch."""

from __future__ import annotations

import colorsys
import math

import pytest
import torch
from torch import Tensor

from cnn.blurring import GaussianBlur, PatchBlur
from cnn.geometric import Perspective, RandomResizedCrop, Rotate, Shear, Zoom
from cnn.photometric import Brightness, Contrast, Gamma, Grayscale, Hue, PCALighting
from cnn.policies import RandAugment
from cnn.transforms import color, policies
from cnn.transforms.blur import gaussian_blur
from tests.cnn.test_augmentation import SAMPLES, augmented, draws, parse, pictures


def constant(*values: float) -> Tensor:
    return torch.tensor(values)[None, :, None, None].expand(SAMPLES, -1, 2, 2)


def assert_uniform(numbers: Tensor, low: float, high: float) -> None:
    """Ten equal parts of [low, high] hold 400 each; the standard deviation is 19."""
    counts = torch.histc(numbers.double(), 10, low, high)
    assert int(counts.sum()) == len(numbers) == SAMPLES
    assert bool(((counts - SAMPLES / 10).abs() < 95).all()), counts


def test_factors_of_brightness_are_uniform() -> None:
    assert_uniform(Brightness(strength=0.5).apply(constant(100), draws(SAMPLES))[:, 0, 0, 0], 50, 150)


def test_factors_of_contrast_are_uniform_and_keep_the_mean() -> None:
    images = constant(100).clone()
    images[:, :, 0] = 140
    result = Contrast(strength=0.5).apply(images, draws(SAMPLES))
    torch.testing.assert_close(result.mean(dim=(1, 2, 3)), torch.full((SAMPLES,), 120.0))
    assert_uniform(result[:, 0, 0, 0] - result[:, 0, 1, 0], 20, 60)


def test_exponents_are_log_uniform() -> None:
    result = Gamma(min_gamma=0.5, max_gamma=2.0).apply(constant(51), draws(SAMPLES))[:, 0, 0, 0]
    assert_uniform(((result / 255).log() / math.log(0.2)).log2(), -1, 1)


def test_turns_of_the_hue_are_uniform_in_both_directions() -> None:
    result = Hue(max_shift=0.2).apply(constant(200, 50, 50), draws(SAMPLES))[:, :, 0, 0] / 255
    hues = torch.tensor([colorsys.rgb_to_hsv(*pixel)[0] for pixel in result.tolist()])
    assert_uniform((hues + 0.5) % 1, 0.3, 0.7)


def test_light_is_normal_along_the_components() -> None:
    result = PCALighting(std=0.1).apply(constant(128, 128, 128), draws(SAMPLES))[:, :, 0, 0]
    for channel in range(3):
        parts = [0.1 * 255 * value * v for value, v in zip(color.EIGENVALUES, color.EIGENVECTORS[channel], strict=True)]
        # The relative standard error of a standard deviation is 1 / sqrt(2 · 4000) = 0.011.
        assert float(result[:, channel].std()) == pytest.approx(math.hypot(*parts), rel=0.055)


def test_colour_is_lost_with_its_probability() -> None:
    result = Grayscale(p=0.3).apply(constant(200, 50, 50), draws(SAMPLES))
    assert abs(int((result[:, 0] == result[:, 1]).all(dim=(1, 2)).sum()) - 0.3 * SAMPLES) < 145


def test_windows_have_uniform_areas_inside_the_image() -> None:
    matrices = RandomResizedCrop(min_area=0.2, max_ratio=1.0).matrix(draws(SAMPLES), (20, 30))
    assert_uniform(matrices[:, 0, 0] * matrices[:, 1, 1], 0.2, 1)
    for axis, side in ((0, 30), (1, 20)):
        reach = matrices[:, axis, 2].abs() + matrices[:, axis, axis] * side / 2
        assert float(reach.max()) <= side / 2 + 1e-4


def test_angles_of_a_shear_are_uniform() -> None:
    matrices = Shear(degrees_x=20, degrees_y=5).matrix(draws(SAMPLES), (8, 8))
    b = matrices[:, 1, 0].atan().rad2deg()
    a = matrices[:, 0, 1].atan().rad2deg()
    assert_uniform(a, -20, 20)
    assert_uniform(b, -5, 5)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / math.sqrt(SAMPLES)


def test_corners_move_inwards_uniformly_with_their_probability() -> None:
    matrices = Perspective(distortion_scale=0.4, p=0.6).matrix(draws(SAMPLES), (8, 8))
    changed = (matrices - torch.eye(3)).abs().amax(dim=(1, 2)) > 1e-5
    assert abs(int(changed.sum()) - 0.6 * SAMPLES) < 155
    # Where the top left corner of the source comes out: at 1 - u · 0.4 of half the side.
    corner = torch.linalg.solve(matrices[changed], torch.tensor([-4.0, -4, 1])[:, None])[:, :, 0]
    moved = 4 + corner[:, 0] / corner[:, 2]
    assert -1e-3 < float(moved.min()) < 0.02
    assert 1.58 < float(moved.max()) < 1.6 + 1e-3
    # Standard deviation 0.46, of about 2400.
    assert float(moved.mean()) == pytest.approx(0.8, abs=0.05)


def test_shares_are_beta_distributed() -> None:
    for alpha in (0.05, 0.2, 1.0, 5.0):
        shares = draws(SAMPLES).beta(alpha)
        assert not bool(shares.isnan().any())
        # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)), at most 1/4.
        assert float(shares.mean()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(SAMPLES))
        assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_blur_has_its_probability_and_a_sigma_of_each_sample() -> None:
    image = pictures(1).expand(SAMPLES, -1, -1, -1)
    result = GaussianBlur(max_sigma=2.0, p=0.25).apply(image, draws(SAMPLES))
    changed = (result - image).abs().amax(dim=(1, 2, 3)) > 1e-3
    # One sigma in 15 is so small that nothing changes: exp(-1 / (2 · 0.14²)) is 1e-11.
    assert abs(int(changed.sum()) - 0.25 * SAMPLES * (1 - 0.1)) < 200
    assert len(result[changed].std(dim=(1, 2, 3)).unique()) > 0.9 * int(changed.sum())


def test_patches_are_blurred_and_the_rest_stays() -> None:
    images = pictures(200, height=20, width=20)
    result = PatchBlur(num_patches=2, max_size=0.5, sigma=1.0).apply(images, draws(200))
    blurred = gaussian_blur(images, torch.ones(200), 3)
    kept = (result == images.float()).all(dim=1)
    assert bool(((result - blurred).abs().amax(dim=1)[~kept] < 1e-3).all())
    # One patch has a quarter of the side each way on average: 1 - (1 - 1/16)² without the chance that both overlap.
    assert float((~kept).float().mean()) == pytest.approx(1 - (1 - 1 / 16) ** 2, abs=0.025)


def test_every_sample_gets_the_operation_that_it_drew() -> None:
    images = pictures(40).float()
    among = policies.operations(3)
    assert len(among) == 14
    drawn, strength = torch.arange(40) % 14, torch.linspace(-1, 1, 40)
    result = policies.apply_drawn(images, drawn, strength, policies.WIDE, among)
    for n in range(40):
        alone = among[n % 14](images[n : n + 1], strength[n : n + 1], policies.WIDE)
        torch.testing.assert_close(result[n : n + 1], alone, rtol=0, atol=1e-3)
    assert len(policies.operations(1)) == 13


def test_a_magnitude_of_30_turns_by_30_degrees() -> None:
    images = pictures(3).float()
    turned = policies._rotate(images, torch.tensor([1.0, -1.0, 0.0]), policies.NARROW)
    expected = policies.warping.warp(images, policies.warping.rotation(torch.tensor([30.0, -30.0, 0.0])))
    assert torch.equal(turned, expected)


def test_operations_are_drawn_uniformly() -> None:
    """At magnitude 0 only equalize, autocontrast, posterize (8 bits) and solarize (255) are left: two change much."""
    image = (pictures(1) // 4 + 60).expand(SAMPLES, -1, -1, -1)
    result = RandAugment(num_ops=1, magnitude=0).apply(image, draws(SAMPLES))
    changed = (result - image).abs().amax(dim=(1, 2, 3)) > 1
    # Of 99 pixels none is spread by equalize, whose step is 0; autocontrast is 1 of 14: 286, standard deviation 16.
    assert abs(int(changed.sum()) - SAMPLES / 14) < 82


def test_zoom_factors_are_log_uniform() -> None:
    matrices = Zoom(min_factor=0.5, max_factor=2.0).matrix(draws(SAMPLES), (8, 8))
    logs = -matrices[:, 0, 0].log2()
    assert torch.equal(matrices[:, 0, 0], matrices[:, 1, 1])
    assert -1 <= float(logs.min()) < -0.99
    assert 0.99 < float(logs.max()) <= 1
    # The variance of a uniform number in [-1, 1] is 1/3; standard errors are 0.009 and 0.005.
    assert float(logs.mean()) == pytest.approx(0, abs=0.045)
    assert float(logs.var()) == pytest.approx(1 / 3, abs=0.025)


def test_angles_are_uniform() -> None:
    matrices = Rotate(degrees=30).matrix(draws(SAMPLES), (8, 8))
    angles = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]).rad2deg()
    counts = torch.histc(angles, 6, -30, 30)
    assert int(counts.sum()) == SAMPLES
    # 667 expected each; the standard deviation is 24.
    assert bool(((counts - SAMPLES / 6).abs() < 120).all())


def test_erased_areas_are_uniform_and_inside() -> None:
    white = torch.full((SAMPLES, 1, 40, 40), 255, dtype=torch.uint8)
    transform = parse({"type": "random_erasing", "p": 0.5, "min_area": 0.1, "max_area": 0.3, "value": 0})
    shares = (augmented(white, transform) == 0).float().mean(dim=(1, 2, 3))
    erased = shares[shares > 0]
    assert abs(len(erased) - SAMPLES / 2) < 160
    assert float(erased.min()) == pytest.approx(0.1, abs=0.01)
    assert float(erased.max()) == pytest.approx(0.3, abs=0.02)
    # Uniform in [0.1, 0.3]: standard deviation 0.058, standard error 0.0013.
    assert float(erased.mean()) == pytest.approx(0.2, abs=0.0065)


@pytest.mark.parametrize("value", [7, "noise"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_large_images_are_erased_one_by_one(value: int | str, dtype: torch.dtype) -> None:
    white = torch.full((40, 3, 70, 80), 255).to(dtype)
    transform = parse({"type": "random_erasing", "p": 0.5, "min_area": 0.1, "max_area": 0.3, "value": value})
    result = transform.apply(white, draws(40))
    assert result.dtype == dtype
    assert bool((white == 255).all())
    erased = (result != 255).any(dim=1)
    shares = erased.float().mean(dim=(1, 2))
    # Standard deviation 3.2.
    assert abs(int((shares > 0).sum()) - 20) < 16
    for image, picture, share in zip(erased, result, shares.tolist(), strict=True):
        if share:
            rows, columns = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
            patch = picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert share == pytest.approx(patch[0].numel() / 5600, abs=1e-6)
            assert 0.095 < share < 0.305
            values = patch.unique().tolist()
            assert values == [7] if value == 7 else len(values) == 256


def test_noise_is_uniform_over_all_bytes() -> None:
    """In every place of a number of the generator, of which each gives eight; and in images of any size."""
    noise = draws(SAMPLES).bytes(1, 8, 16)
    assert noise.dtype == torch.uint8
    for place in range(8):
        values = noise.flatten()[place::8]
        counts = torch.bincount(values.int(), minlength=256)
        # 250 expected of each value, the standard deviation is 16.
        assert len(values) == 256 * 250
        assert bool(((counts - 250).abs() < 80).all())
    assert draws(3).bytes(3, 5, 7).shape == (3, 3, 5, 7)


def test_erased_pixels_are_replaced_by_noise_of_their_own() -> None:
    transform = parse({"type": "random_erasing", "p": 1, "min_area": 0.1, "max_area": 1, "value": "noise"})
    erased = augmented(torch.zeros(SAMPLES, 1, 16, 16, dtype=torch.uint8), transform)
    values = erased[erased > 0].double()
    # Uniform in 1..255: mean 128, standard deviation 74; several hundred thousand pixels.
    assert len(values) > 100_000
    assert float(values.mean()) == pytest.approx(128, abs=1)
    assert not torch.equal(erased[0], erased[1])
