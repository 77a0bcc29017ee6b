from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from cnn.transforms.sampling import Motion, followed_by, mirroring, resample, shifting

PICTURE = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)


def pictures(num_images: int) -> Tensor:
    return PICTURE.expand(num_images, 1, 2, 3)


def shift(down: list[int], right: list[int]) -> Motion:
    reach = max(map(abs, down)), max(map(abs, right))
    return shifting(torch.tensor([down, right]), reach)


def mirror(upside_down: list[bool], mirrored: list[bool]) -> Motion:
    return mirroring(torch.tensor([upside_down, mirrored]))


def test_a_shift_of_nothing_changes_nothing() -> None:
    images = torch.randint(0, 256, (5, 3, 2, 3), dtype=torch.uint8)
    assert torch.equal(resample(images, shift([0] * 5, [0] * 5)), images)


def test_each_sample_is_shifted_by_its_own_distance() -> None:
    moved = shift([0, 1, 0, -1], [1, 0, -2, -1])
    assert resample(pictures(4), moved)[:, 0].tolist() == [
        [[0, 1, 2], [0, 4, 5]],
        [[0, 0, 0], [1, 2, 3]],
        [[3, 0, 0], [6, 0, 0]],
        [[5, 6, 0], [0, 0, 0]],
    ]


@pytest.mark.parametrize(("down", "right"), [(2, 0), (-2, 0), (0, 3), (0, -3), (50, -70)])
def test_a_shift_beyond_the_image_leaves_the_fill(down: int, right: int) -> None:
    assert resample(pictures(1), shift([down], [right]), fill=9).flatten().tolist() == [9] * 6


def test_only_the_chosen_samples_are_mirrored() -> None:
    flipped = mirror([False, False, True], [True, False, False])
    assert resample(pictures(3), flipped)[:, 0].tolist() == [
        [[3, 2, 1], [6, 5, 4]],
        [[1, 2, 3], [4, 5, 6]],
        [[4, 5, 6], [1, 2, 3]],
    ]


def test_two_motions_in_one_are_one_after_the_other() -> None:
    """Inside a margin so wide that nothing leaves it, for all shifts and mirrorings by one pixel."""
    images = torch.nn.functional.pad(PICTURE[None, None], (4, 4, 4, 4))
    single = [
        *(shift([down], [right]) for down, right in itertools.product((-1, 0, 1), repeat=2)),
        *(mirror([upside_down], [mirrored]) for upside_down, mirrored in itertools.product((False, True), repeat=2)),
    ]
    for first, second in itertools.product(single, repeat=2):
        apart = resample(resample(images, first), second)
        assert torch.equal(resample(images, followed_by(first, second)), apart)
        for third in single:
            together = followed_by(followed_by(first, second), third)
            assert torch.equal(resample(images, together), resample(apart, third))


def test_what_one_motion_pushes_out_the_next_brings_back() -> None:
    back = followed_by(shift([1], [1]), shift([-1], [-1]))
    assert torch.equal(resample(pictures(1), back), pictures(1))


def test_all_channels_move_together() -> None:
    images = torch.stack([PICTURE, PICTURE + 10])[None]
    moved = resample(images, shift([0], [1]))
    assert moved[0].tolist() == [[[0, 1, 2], [0, 4, 5]], [[0, 11, 12], [0, 14, 15]]]
