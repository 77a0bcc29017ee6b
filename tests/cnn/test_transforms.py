"""The batched transforms against torchvision's, image by image, for known parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from cnn.transforms import blur, color, mixing, tone, warping
from cnn.transforms.sampling import mirroring, shifting

BILINEAR = InterpolationMode.BILINEAR
N = 5


def images(channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (N, channels, height, width), dtype=torch.uint8, generator=generator).float()


def each(pictures: Tensor, values: Tensor, function: Callable[[Tensor, float], Tensor]) -> Tensor:
    """torchvision's function of every float image in 0..1 with a value of its own."""
    pairs = zip(pictures, values.tolist(), strict=True)
    return torch.stack([function(picture / 255, value) for picture, value in pairs]) * 255


def close(result: Tensor, expected: Tensor, tolerance: float = 2e-3) -> None:
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)


FACTORS = torch.tensor([0.0, 0.4, 1.0, 1.3, 2.0])


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions(channels: int) -> None:
    pictures = images(channels)
    close(color.brightness(pictures, FACTORS), each(pictures, FACTORS, V.adjust_brightness))
    close(color.contrast(pictures, FACTORS), each(pictures, FACTORS, V.adjust_contrast))
    close(color.saturation(pictures, FACTORS), each(pictures, FACTORS, V.adjust_saturation))
    exponents = torch.tensor([0.3, 0.7, 1.0, 1.5, 3.0])
    close(color.gamma(pictures, exponents), each(pictures, exponents, V.adjust_gamma), 0.01)


def test_hues_are_torchvisions() -> None:
    pictures = images()
    pictures[0, :, 0] = 128  # grey has no hue
    pictures[1, :2, 1] = 255  # two brightest channels
    shifts = torch.tensor([-0.5, -0.1, 0.0, 0.2, 0.5])
    close(color.hue(pictures, shifts), each(pictures, shifts, V.adjust_hue), 0.02)


def test_only_the_chosen_images_become_grey() -> None:
    pictures = images()
    chosen = torch.tensor([True, False, True, False, True])
    expected = each(pictures, torch.ones(N), lambda picture, _: V.rgb_to_grayscale(picture, num_output_channels=3))
    result = color.grayscale(pictures, chosen)
    close(result[chosen], expected[chosen])
    assert torch.equal(result[~chosen], pictures[~chosen])


def test_light_is_added_along_the_components() -> None:
    grey = torch.full((1, 3, 2, 2), 100.0)
    result = color.add_light(grey, torch.tensor([[0.1, 0.0, 0.0]]))
    # 255 · 0.1 · 0.2175 · (-0.5675, -0.5808, -0.5836)
    close(result[0, :, 0, 0], torch.tensor([100 - 3.14750, 100 - 3.22127, 100 - 3.23680]), 1e-3)


def test_rotations_are_torchvisions() -> None:
    angles = torch.tensor([-90.0, -20.0, 0.0, 33.0, 180.0])
    expected = each(images(), angles, lambda picture, angle: V.rotate(picture, angle, BILINEAR))
    close(warping.warp(images(), warping.rotation(angles)), expected, 0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_shears_are_torchvisions(axis: int) -> None:
    angles = torch.tensor([-40.0, -10.0, 0.0, 5.0, 30.0])
    slopes, zero = angles.deg2rad().tan(), torch.zeros(N)
    matrices = warping.shearing(slopes, zero) if axis == 0 else warping.shearing(zero, slopes)

    def shear(picture: Tensor, angle: float) -> Tensor:
        both = [angle, 0.0] if axis == 0 else [0.0, angle]
        return V.affine(picture, 0.0, [0, 0], 1.0, both, BILINEAR)

    close(warping.warp(images(), matrices), each(images(), angles, shear), 0.05)


def test_zooms_are_torchvisions_with_fill() -> None:
    factors = torch.tensor([0.5, 0.8, 1.0, 1.5, 3.0])

    def zoom(picture: Tensor, factor: float) -> Tensor:
        # Its own fill counts twice where a pixel lies half outside, so that the picture is shifted instead.
        return V.affine(picture - 40 / 255, 0.0, [0, 0], factor, [0.0, 0.0], BILINEAR) + 40 / 255

    result = warping.warp(images(), warping.scaling(factors, factors), fill=40)
    close(result, each(images(), factors, zoom), 0.05)


def test_crops_are_torchvisions_inside_their_border() -> None:
    """The border differs as stated: what lies beside the window shines in."""
    boxes = [(0, 0, 12, 16), (2, 3, 6, 8), (4, 0, 8, 16), (6, 8, 6, 8), (1, 1, 3, 4)]
    top, left, height, width = torch.tensor(boxes, dtype=torch.float32).unbind(1)
    result = warping.warp(images(), warping.crop(left, top, width, height, (12, 16)))
    for index, box in enumerate(boxes):
        expected = V.resized_crop(images()[index], *box, [12, 16], BILINEAR, antialias=False)
        close(result[index, :, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], 0.05)


def test_perspectives_are_torchvisions() -> None:
    start = [[0, 0], [16, 0], [16, 12], [0, 12]]
    ends = [start, [[2, 1], [15, 3], [13, 11], [1, 9]], [[5, 4], [14, 0], [16, 12], [3, 11]]]
    moved = torch.tensor(ends, dtype=torch.float32) - torch.tensor([8.0, 6.0])
    result = warping.warp(images()[:3], warping.perspective(moved, (12, 16)), projective=True)
    for index, end in enumerate(ends):
        close(result[index], V.perspective(images()[index], start, end, BILINEAR, fill=None), 0.05)


def test_whole_pixels_as_matrices_are_exact() -> None:
    moves = torch.tensor([[0, 1, -2, 3, 0], [0, -1, 5, 0, 2]])
    result = warping.warp(images(), warping.motion_matrix(shifting(moves, (3, 5))))
    for index, (rows, columns) in enumerate(moves.T.tolist()):
        close(result[index], V.affine(images()[index], 0.0, [columns, rows], 1.0, [0.0, 0.0]), 0.01)
    yes = torch.ones(N, dtype=torch.bool)
    close(warping.warp(images(), warping.motion_matrix(mirroring(torch.stack([yes, ~yes])))), images().flip(2), 0.01)
    close(warping.warp(images(), warping.motion_matrix(mirroring(torch.stack([~yes, yes])))), images().flip(3), 0.01)


def test_blurs_are_torchvisions() -> None:
    sigmas = torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0])
    expected = each(images(), sigmas, lambda picture, sigma: V.gaussian_blur(picture, [9, 9], [sigma, sigma]))
    close(blur.gaussian_blur(images(), sigmas, radius=4), expected)


def test_blurs_of_several_blocks_are_torchvisions() -> None:
    """With kernels as long as a side, and so narrow that float32 has no such small weights."""
    pictures, sigmas, size = images(1, 70, 33), torch.tensor([0.2, 1.0, 3.0, 6.0, 9.0]), [65, 65]
    expected = each(pictures, sigmas, lambda picture, sigma: V.gaussian_blur(picture, size, [sigma, sigma]))
    close(blur.gaussian_blur(pictures, sigmas, radius=32), expected)


def test_boxes_are_cut_off_at_the_border() -> None:
    top, left = torch.tensor([1, -1]), torch.tensor([0, 2])
    masks = blur.boxes(top, left, torch.tensor([1, 2]), torch.tensor([2, 5]), (2, 3))
    assert masks[:, 0].int().tolist() == [[[0, 0, 0], [1, 1, 0]], [[0, 0, 1], [0, 0, 0]]]


def test_tones_are_torchvisions() -> None:
    """Bits and histograms are of whole numbers, so that these are compared as uint8."""
    pictures = images()
    pictures[0, 1] = 7  # a constant channel
    pictures[1] = (pictures[1] / 4).floor() + 30
    whole = pictures.to(torch.uint8)
    close(tone.equalize(pictures), V.equalize(whole).float(), 0)
    close(tone.autocontrast(pictures), V.autocontrast(pictures / 255) * 255)
    bits = torch.tensor([1.0, 2.0, 4.0, 7.0, 8.0])
    expected = torch.stack([V.posterize(w, int(b)) for w, b in zip(whole, bits, strict=True)])
    close(tone.posterize(pictures, bits), expected.float(), 0)
    thresholds = torch.tensor([0.0, 10.0, 128.0, 250.0, 255.0])
    close(tone.solarize(pictures, thresholds), each(pictures, thresholds, lambda p, t: V.solarize(p, t / 255)))
    close(tone.sharpness(pictures, FACTORS), each(pictures, FACTORS, V.adjust_sharpness))


def test_equalize_where_a_step_is_more_than_one_pixel() -> None:
    pictures = images(height=40, width=40)
    close(tone.equalize(pictures), V.equalize(pictures.to(torch.uint8)).float(), 0)


def test_mixup_mixes_images_and_targets_by_the_share_of_each_sample() -> None:
    pictures = torch.tensor([10.0, 20.0, 30.0])[:, None, None, None]
    mixed, targets = mixing.mixup(pictures, torch.eye(3), torch.tensor([1, 2, 0]), torch.tensor([0.75, 0.5, 1.0]))
    assert mixed.flatten().tolist() == [12.5, 25.0, 30.0]
    assert targets.tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1]]


def test_cutmix_mixes_targets_by_the_area_that_remains() -> None:
    pictures = torch.tensor([0, 9], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 4, 4)
    middle, corner = 0.5, 0.0
    mixed, targets = mixing.cutmix(
        pictures,
        torch.eye(2),
        torch.tensor([1, 0]),
        torch.tensor([0.75, 0.75]),
        (torch.tensor([middle, corner]), torch.tensor([middle, corner])),
    )
    # Sides of 4 · sqrt(0.25) = 2 pixels; the second lies for three quarters outside.
    assert mixed[0, 0].tolist() == [[0, 0, 0, 0], [0, 9, 9, 0], [0, 9, 9, 0], [0, 0, 0, 0]]
    assert mixed[1, 0].tolist() == [[0, 9, 9, 9], [9, 9, 9, 9], [9, 9, 9, 9], [9, 9, 9, 9]]
    assert targets.tolist() == [[0.75, 0.25], [0.0625, 0.9375]]
    assert math.isclose(float(targets.sum()), 2)
