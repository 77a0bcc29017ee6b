from __future__ import annotations

import json
from collections import Counter
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from cnn.augmentation import Augmentation, build_augmentation
from cnn.base import ShapeError
from cnn.geometric import HorizontalFlip, RandomCrop, Rotate, Shear, Translate, VerticalFlip, Zoom
from cnn.transform import Stage
from cnn.transforms.draws import Draws
from tests.cnn.plain import small_spec

SAMPLES = 4000
MEMBERS = [
    member for member in get_args(get_args(Augmentation.__value__)[0]) if member.stage in (Stage.IMAGE, Stage.MIX)
]
UINT8 = {"random_crop", "horizontal_flip", "vertical_flip", "translate", "random_erasing", "cutmix"}
RGB_ONLY = {"saturation", "hue", "pca_lighting", "grayscale"}
IDENTITIES: list[dict[str, Any]] = [
    {"type": "random_resized_crop", "min_area": 1.0, "max_ratio": 1.0},
    {"type": "center_crop", "size": 1.0},
    {"type": "horizontal_flip", "p": 0.0},
    {"type": "vertical_flip", "p": 0.0},
    {"type": "zoom", "min_factor": 1.0, "max_factor": 1.0, "fill": 90},
    {"type": "translate", "max_shift": 1e-6},
    {"type": "rotate", "degrees": 0.0},
    {"type": "shear", "degrees_x": 0.0, "degrees_y": 0.0},
    {"type": "perspective", "p": 0.0},
    {"type": "perspective", "distortion_scale": 0.0, "p": 1.0},
    {"type": "patch_blur", "sigma": 1e-6},
    {"type": "gaussian_blur", "p": 0.0},
    {"type": "random_erasing", "p": 0.0},
    {"type": "brightness", "strength": 0.0},
    {"type": "contrast", "strength": 0.0},
    {"type": "saturation", "strength": 0.0},
    {"type": "hue", "max_shift": 0.0},
    {"type": "gamma", "min_gamma": 1.0, "max_gamma": 1.0},
    {"type": "pca_lighting", "std": 0.0},
    {"type": "grayscale", "p": 0.0},
    {"type": "color_jitter", "brightness": 0.0, "contrast": 0.0},
    {"type": "rand_augment", "num_ops": 0},
    {"type": "mixup", "p": 0.0},
    {"type": "cutmix", "p": 0.0},
]


def parse(content: dict[str, Any]) -> Any:
    return TypeAdapter(Augmentation).validate_python(content)


def draws(num_images: int, seed: int = 0, epoch: int = 1) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), torch.arange(num_images), epoch, seed=0)


def augmented(images: Tensor, *transforms: Any, seed: int = 0, epoch: int = 1) -> Tensor:
    augment = build_augmentation(transforms, num_classes=10)
    return augment(images, torch.arange(len(images)) % 10, draws(len(images), seed, epoch))[0]


def pictures(num_images: int, channels: int = 3, height: int = 9, width: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_images, channels, height, width), dtype=torch.uint8, generator=generator)


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


@pytest.mark.parametrize(("member", "dim"), [(HorizontalFlip, 3), (VerticalFlip, 2)])
@pytest.mark.parametrize(("p", "low", "high"), [(0.0, 0, 0), (0.25, 850, 1150), (1.0, SAMPLES, SAMPLES)])
def test_flips_have_their_probability(member: Any, dim: int, p: float, low: int, high: int) -> None:
    images = torch.arange(SAMPLES * 6).remainder(251).to(torch.uint8).reshape(SAMPLES, 1, 2, 3)
    result = augmented(images, member(p=p))
    flipped = (result == images.flip(dim)).flatten(1).all(dim=1)
    kept = (result == images).flatten(1).all(dim=1)
    assert (flipped ^ kept).all()
    assert low <= int(flipped.sum()) <= high


def test_alternating_flips_show_both_sides_in_any_two_epochs() -> None:
    images = pictures(SAMPLES, 1, 3, 4)
    epochs = [augmented(images, HorizontalFlip(mode="alternating"), seed=e, epoch=e) for e in (1, 2, 3)]
    flipped = [(result == images.flip(3)).flatten(1).all(dim=1) for result in epochs]
    assert torch.equal(flipped[0], ~flipped[1])
    assert torch.equal(flipped[0], flipped[2])
    # The standard deviation of a fair coin is 32; neighbours are independent.
    assert abs(int(flipped[0].sum()) - SAMPLES / 2) < 160
    assert abs(int((flipped[0][1:] == flipped[0][:-1]).sum()) - SAMPLES / 2) < 160


def test_alternating_flips_have_no_probability() -> None:
    with pytest.raises(ShapeError, match=r'p must be 0.5 with mode "alternating", got 0.2'):
        HorizontalFlip(mode="alternating", p=0.2).check((1, 8, 8))


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


@pytest.mark.parametrize("content", IDENTITIES, ids=lambda content: content["type"])
def test_parameters_of_the_identity_change_nothing(content: dict[str, Any]) -> None:
    images, labels = pictures(5), torch.arange(5)
    result, targets = build_augmentation([parse(content)], 10)(images, labels, draws(5))
    torch.testing.assert_close(result.float(), images.float(), rtol=0, atol=2e-3)
    assert torch.equal(targets if targets.ndim == 1 else targets.argmax(1), labels)


def test_every_member_has_parameters_of_the_identity_but_those_that_always_change_something() -> None:
    assert {member.model_fields["type"].default for member in MEMBERS} - {item["type"] for item in IDENTITIES} == {
        "random_crop",
        "trivial_augment",
    }


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (3, 140, 160)])
def test_every_member_keeps_the_shape_and_follows_its_generator(member: type[Any], shape: tuple[int, int, int]) -> None:
    transform = parse({"type": member.model_fields["type"].default})
    if shape[0] == 1 and transform.type in RGB_ONLY:
        return
    transform.check(shape)
    images = pictures(10, *shape)  # the largest fill one chunk and a part of another
    result = augmented(images, transform)
    assert result.shape == images.shape
    assert result.dtype == (torch.uint8 if transform.type in UINT8 else torch.float32)
    assert 0 <= float(result.min()) <= float(result.max()) <= 255.001
    assert torch.equal(result, augmented(images, transform))
    assert not torch.equal(result, images)
    if transform.type != "center_crop":
        assert not torch.equal(result, augmented(images, transform, seed=1))


@pytest.mark.parametrize("member", MEMBERS)
def test_parameters_are_of_each_sample_and_not_of_the_batch(member: type[Any]) -> None:
    """Copies of one image in a batch come out in several ways."""
    transform = parse({"type": member.model_fields["type"].default})
    copies = pictures(1).expand(64, -1, -1, -1).contiguous()
    if transform.stage is Stage.MIX:
        copies[1::2] = 255 - copies[1::2]
    distinct = len(augmented(copies, transform).float().flatten(1).round(decimals=2).unique(dim=0))
    few = {"center_crop": 1, "horizontal_flip": 2, "vertical_flip": 2, "grayscale": 2}
    assert distinct == few[transform.type] if transform.type in few else distinct > 3


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_is_documented_and_goes_through_json(member: type[Any]) -> None:
    transform = parse({"type": member.model_fields["type"].default})
    assert TypeAdapter(Augmentation).validate_json(transform.model_dump_json()) == transform
    assert member.__doc__
    undocumented = {name for name, field in member.model_fields.items() if not field.description} - {"type"}
    assert not undocumented


@pytest.mark.parametrize("kind", sorted(RGB_ONLY))
def test_colours_of_grey_images_are_refused_when_the_spec_is_read(kind: str) -> None:
    with pytest.raises(ValidationError, match=f"{kind}: needs images with the three channels") as caught:
        small_spec(augmentation=[{"type": "rotate"}, {"type": kind}])
    assert caught.value.errors()[0]["ctx"]["pointer"] == "/augmentation/1"


def test_a_jitter_of_grey_images_may_not_turn_the_hue() -> None:
    with pytest.raises(ValidationError, match="color_jitter: saturation or hue needs images with the three channels"):
        small_spec(augmentation=[{"type": "color_jitter", "hue": 0.1}])


def test_what_mixes_samples_comes_last() -> None:
    with pytest.raises(ValidationError, match="rotate: it changes single images, so it comes before those that mix"):
        small_spec(augmentation=[{"type": "mixup"}, {"type": "rotate"}])


def test_what_decides_on_the_batch_comes_first() -> None:
    with pytest.raises(ValidationError, match="gan: it decides what enters the batch, so it comes before") as caught:
        small_spec(augmentation=[{"type": "rotate"}, {"type": "gan"}])
    assert caught.value.errors()[0]["ctx"]["pointer"] == "/augmentation/1"
    small_spec(augmentation=[{"type": "gan"}, {"type": "rotate"}, {"type": "mixup"}])


def test_a_batch_is_mixed_once_at_most() -> None:
    small_spec(augmentation=[{"type": "mixup", "p": 0.5}, {"type": "cutmix", "p": 0.5}])
    with pytest.raises(ValidationError, match=r"the probabilities p of mixup and cutmix add up to 1\.5"):
        small_spec(augmentation=[{"type": "mixup", "p": 0.5}, {"type": "cutmix"}])


def test_mixing_transforms_take_turns_with_their_probabilities() -> None:
    images = pictures(8, 1)
    labels = torch.arange(8)
    augment = build_augmentation([parse({"type": "mixup", "p": 0.3}), parse({"type": "cutmix", "p": 0.5})], 8)
    kinds: Counter[str] = Counter()
    for seed in range(600):
        mixed, targets = augment(images, labels, draws(8, seed))
        torch.testing.assert_close(targets.sum(1), torch.ones(8))
        whole = bool((mixed == mixed.round()).all())  # cutmix makes no new values
        changed = not torch.equal(targets.argmax(1), labels) or bool((targets.max(1).values < 1).any())
        kinds["none" if not changed else "cutmix" if whole else "mixup"] += 1
    # Standard deviations are below 12.3.
    assert abs(kinds["mixup"] - 180) < 62
    assert abs(kinds["cutmix"] - 300) < 62
    assert abs(kinds["none"] - 120) < 62


def one_after_the_other(images: Tensor, chain: list[Any]) -> Tensor:
    """With the same parameters as if all were in one list."""
    generator = draws(len(images))
    for transform in chain:
        images, _ = build_augmentation([transform], 10)(images, torch.zeros(len(images)), generator)
    return images


def test_what_one_pushed_out_a_neighbour_brings_back() -> None:
    white = torch.full((64, 1, 15, 15), 255, dtype=torch.uint8)
    chain = [Translate(max_shift=0.3), Zoom(min_factor=0.3, max_factor=1.0)]
    composed, apart = augmented(white, *chain), one_after_the_other(white, chain)
    more = (composed - apart).sum(dim=(1, 2, 3)) / 255
    assert float(more.min()) > -0.01
    assert float(more.max()) > 5


def test_a_composition_is_nearly_its_parts_one_after_the_other() -> None:
    """On a smooth picture away from its border, where a second interpolation and the cut between hardly matter."""
    y, x = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    smooth = (128 + 60 * torch.sin(x / 6) + 60 * torch.cos(y / 7)).round().to(torch.uint8).expand(6, 1, 41, 41)
    chain = [Zoom(), HorizontalFlip(), Rotate(degrees=10), Shear(), Translate(max_shift=0.05)]
    composed = augmented(smooth, *chain)
    images = one_after_the_other(smooth, chain)
    torch.testing.assert_close(composed[:, :, 12:-12, 12:-12], images[:, :, 12:-12, 12:-12], rtol=0, atol=4)


def test_fill_surrounds_what_became_smaller() -> None:
    white = torch.full((8, 1, 16, 16), 255, dtype=torch.uint8)
    result = augmented(white, Zoom(min_factor=0.5, max_factor=1.0, fill=77))
    assert float(result[:, 0, 0, 0].min()) == 77
    torch.testing.assert_close(result[:, 0, 8, 8], torch.full((8,), 255.0))
    moved = augmented(white, Translate(max_shift=0.5, fill=9))
    assert moved.unique().tolist() == [9, 255]


def test_without_transforms_the_images_stay() -> None:
    images = torch.randint(0, 256, (4, 1, 3, 3), dtype=torch.uint8)
    assert torch.equal(augmented(images), images)


def test_a_crop_may_not_lose_the_whole_image() -> None:
    RandomCrop(padding=4).check((1, 5, 9))
    with pytest.raises(ShapeError, match="smaller than the image's side of 5 pixels, got 5"):
        RandomCrop(padding=5).check((1, 5, 9))


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_angle"):
        small_spec(augmentation=json.loads('[{"type": "rotate", "max_angle": 3}]'))
