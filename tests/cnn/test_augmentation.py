from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from cnn.augmentation import Augmentation, HorizontalFlip, RandomCrop, Translate, build_augmentation
from cnn.base import ShapeError

SAMPLES = 4000
MEMBERS = get_args(get_args(Augmentation.__value__)[0])


def augmented(images: Tensor, *transforms: Any, seed: int = 0) -> Tensor:
    return build_augmentation(transforms)(images, torch.Generator().manual_seed(seed))


def dots(height: int, width: int) -> Tensor:
    """Pictures with one white pixel in the middle."""
    images = torch.zeros(SAMPLES, 1, height, width, dtype=torch.uint8)
    images[:, 0, height // 2, width // 2] = 255
    return images


def moves(images: Tensor) -> tuple[Counter[int], Counter[int]]:
    """How often the dot was moved by so many rows and columns."""
    _, _, rows, columns = images.nonzero().unbind(1)
    height, width = images.shape[2:]
    return Counter((rows - height // 2).tolist()), Counter((columns - width // 2).tolist())


def test_crops_are_uniform_over_all_places() -> None:
    for counts in moves(augmented(dots(9, 9), RandomCrop(padding=2))):
        assert sorted(counts) == [-2, -1, 0, 1, 2]
        # 800 expected each; the standard deviation is 25.
        assert all(abs(count - SAMPLES / 5) < 125 for count in counts.values())


def test_translations_reach_their_share_of_each_side() -> None:
    down, right = moves(augmented(dots(20, 10), Translate(max_shift=0.25)))
    assert sorted(down) == [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]
    assert sorted(right) == [-2, -1, 0, 1, 2]
    # u · 5 rounds to 5 for 0.5 of 10 units, and to 0 for one of them; standard deviations are below 19.
    assert abs(down[5] - SAMPLES * 0.05) < 80
    assert abs(down[0] - SAMPLES * 0.1) < 100


@pytest.mark.parametrize(("p", "low", "high"), [(0.0, 0, 0), (0.25, 850, 1150), (1.0, SAMPLES, SAMPLES)])
def test_flips_have_their_probability(p: float, low: int, high: int) -> None:
    images = torch.arange(SAMPLES * 6).remainder(251).to(torch.uint8).reshape(SAMPLES, 1, 2, 3)
    result = augmented(images, HorizontalFlip(p=p))
    flipped = (result == images.flip(3)).flatten(1).all(dim=1)
    kept = (result == images).flatten(1).all(dim=1)
    assert (flipped ^ kept).all()
    assert low <= int(flipped.sum()) <= high


def test_both_directions_and_flip_are_independent_of_each_other() -> None:
    images = dots(9, 9)
    images[:, 0, 4, 5] = 100  # tells left from right
    result = augmented(images, RandomCrop(padding=1), HorizontalFlip())
    cases: Counter[tuple[int, int, bool]] = Counter()
    for sample in result:
        row, column = (sample[0] == 255).nonzero()[0].tolist()
        cases[row - 4, column - 4, int(sample[0, row, column + 1]) == 100] += 1
    assert len(cases) == 18
    assert all(abs(count - SAMPLES / 18) < 75 for count in cases.values())


def test_the_list_is_applied_in_its_order() -> None:
    """A crop that moves to the right and then a flip is not the flip first: the dot ends on the other side."""
    images = dots(9, 9)
    first = moves(augmented(images, RandomCrop(padding=3), HorizontalFlip(p=1)))[1]
    plain = moves(augmented(images, RandomCrop(padding=3)))[1]
    assert {-move: count for move, count in plain.items()} == dict(first)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)])
def test_every_transform_keeps_shape_and_type_and_follows_its_generator(
    member: type[Any], shape: tuple[int, int, int]
) -> None:
    transform = TypeAdapter(Augmentation).validate_python({"type": member.model_fields["type"].default})
    transform.check(shape)
    images = torch.randint(0, 256, (64, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    result = augmented(images, transform)
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    assert torch.equal(result, augmented(images, transform))
    assert not torch.equal(result, augmented(images, transform, seed=1))
    assert not torch.equal(result, images)


def test_without_transforms_the_images_stay() -> None:
    images = torch.randint(0, 256, (4, 1, 3, 3), dtype=torch.uint8)
    assert torch.equal(augmented(images), images)


def test_a_crop_may_not_lose_the_whole_image() -> None:
    RandomCrop(padding=4).check((1, 5, 9))
    with pytest.raises(ShapeError, match="smaller than the image's side of 5 pixels, got 5"):
        RandomCrop(padding=5).check((1, 5, 9))
