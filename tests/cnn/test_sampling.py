from __future__ import annotations

import torch
from torch import Tensor

from cnn.transforms.sampling import Sampling, flip_horizontally, identity, resample, shift

PICTURE = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)
CPU = torch.device("cpu")


def start(num_images: int) -> Sampling:
    return identity(num_images, 2, 3, CPU)


def pictures(num_images: int) -> Tensor:
    return PICTURE.expand(num_images, 1, 2, 3)


def test_the_identity_changes_nothing() -> None:
    images = torch.randint(0, 256, (5, 3, 2, 3), dtype=torch.uint8)
    assert torch.equal(resample(images, start(5)), images)


def test_each_sample_is_shifted_by_its_own_distance() -> None:
    moved = shift(start(4), torch.tensor([0, 1, 0, -1]), torch.tensor([1, 0, -2, -1]))
    assert resample(pictures(4), moved)[:, 0].tolist() == [
        [[0, 1, 2], [0, 4, 5]],
        [[0, 0, 0], [1, 2, 3]],
        [[3, 0, 0], [6, 0, 0]],
        [[5, 6, 0], [0, 0, 0]],
    ]


def test_a_shift_beyond_the_image_leaves_the_fill() -> None:
    moved = shift(start(1), torch.tensor([2]), torch.tensor([0]))
    assert resample(pictures(1), moved, fill=9).flatten().tolist() == [9] * 6


def test_only_the_chosen_samples_are_flipped() -> None:
    flipped = flip_horizontally(start(2), torch.tensor([True, False]))
    assert resample(pictures(2), flipped)[:, 0].tolist() == [[[3, 2, 1], [6, 5, 4]], [[1, 2, 3], [4, 5, 6]]]


def test_transforms_compose_in_order_as_if_one_after_the_other() -> None:
    one, minus_one, yes = torch.tensor([1]), torch.tensor([-1]), torch.tensor([True])
    composed = flip_horizontally(shift(start(1), one, one), yes)
    step = resample(resample(pictures(1), shift(start(1), one, one)), flip_horizontally(start(1), yes))
    assert torch.equal(resample(pictures(1), composed), step)
    assert step[0, 0].tolist() == [[0, 0, 0], [2, 1, 0]]
    # What a shift pushed out does not come back.
    back = shift(shift(start(1), one, one), minus_one, minus_one)
    assert resample(pictures(1), back)[0, 0].tolist() == [[1, 2, 0], [0, 0, 0]]


def test_all_channels_move_together() -> None:
    images = torch.stack([PICTURE, PICTURE + 10])[None]
    moved = resample(images, shift(start(1), torch.tensor([0]), torch.tensor([1])))
    assert moved[0].tolist() == [[[0, 1, 2], [0, 4, 5]], [[0, 11, 12], [0, 14, 15]]]
