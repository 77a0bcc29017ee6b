"""Resampling by the library against torch's, and bits that depend on an image and its matrix alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn import augmentation
from cnn.augmentation import build_augmentation
from cnn.native.library import Library
from cnn.transforms import warping
from cnn.transforms.draws import Draws
from tests.cnn.native.using import using
from tests.cnn.test_augmentation import parse, pictures

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
NAN, INF = float("nan"), float("inf")
KINDS = ("similar", "axes", "whole", "affine", "tilted", "identity")
SHAPES = st.tuples(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 9) | st.sampled_from([16, 33, 60]),
    st.integers(1, 9) | st.sampled_from([16, 33, 60, 256, 257, 600]),
)
FILLS = st.sampled_from([0.0, 40.0, 255.0, 0.5, -3.0, 300.0])


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matrices_of(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Random ones of a kind for images (N, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = shape
    drawn = torch.rand(count, 8, generator=generator) * 2 - 1
    x, y, right, down = drawn[:, 0].exp(), drawn[:, 1].exp(), drawn[:, 2] * width, drawn[:, 3] * height
    match kind:
        case "similar":
            return warping.rotation(drawn[:, 4] * 180) @ warping.scaling(x, x) @ warping.translation(right, down)
        case "axes":
            return warping.scaling(x, y) @ warping.translation(right, down)
        case "whole":
            mirrored = warping.scaling(drawn[:, 5].sign(), drawn[:, 6].sign())
            return mirrored @ warping.translation(right.round(), down.round())
        case "affine":
            return torch.cat(
                [torch.randn(count, 2, 3, generator=generator), torch.tensor([0.0, 0, 1]).expand(count, 1, 3)], 1
            )
        case "tilted":
            corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * torch.tensor([width / 2, height / 2])
            return warping.perspective(
                corners * (1 - 0.8 * torch.rand(count, 4, 2, generator=generator)), (height, width)
            )
        case _:
            return torch.eye(3).repeat(count, 1, 1)


def images_of(shape: tuple[int, ...], is_bytes: bool, seed: int) -> Tensor:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return images if is_bytes else images * 1.01 - 3.7


@SHARED
@given(shape=SHAPES, kind=st.sampled_from(KINDS), is_bytes=st.booleans(), fill=FILLS, seed=st.integers(0, 2**16))
def test_values_are_those_of_torch(
    folder: Path, shape: tuple[int, ...], kind: str, is_bytes: bool, fill: float, seed: int
) -> None:
    images, matrices = images_of(shape, is_bytes, seed), matrices_of(kind, shape, seed)
    expected = warping.warp(images, matrices, fill, projective=kind == "tilted")
    before = images.clone()
    with using(folder):
        found = warping.warp(images, matrices, fill, projective=kind == "tilted")
    assert found.dtype == torch.float32
    assert torch.equal(images, before)
    # Coordinates of float32 differ by some millionths of the side, and values beside each other by up to 300.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.005 + 0.0002 * max(shape[2:]))
    if kind == "identity":
        assert torch.equal(found, images.float())


@SHARED
@given(shape=SHAPES, is_bytes=st.booleans(), seed=st.integers(0, 2**16))
def test_a_point_behind_the_horizon_has_the_value_of_the_filling(
    folder: Path, shape: tuple[int, ...], is_bytes: bool, seed: int
) -> None:
    images = images_of(shape, is_bytes, seed)
    matrices = torch.randn(shape[0], 3, 3, generator=torch.Generator().manual_seed(seed))
    expected = warping.warp(images, matrices, 7, projective=True)
    with using(folder):
        found = warping.warp(images, matrices, 7, projective=True)
    height, width = shape[2:]
    x, y = torch.arange(width) - (width - 1) / 2, torch.arange(height)[:, None] - (height - 1) / 2
    a, b, c = matrices[:, 2, :, None, None].unbind(1)
    scale = (a * x + b * y + c)[:, None].expand(found.shape)
    assert (found[scale < -1e-3] == 7).all()
    clear = scale > 0.3
    torch.testing.assert_close(found[clear], expected[clear], rtol=0, atol=0.005 + 0.002 * max(shape[2:]))
    assert found.min() >= min(7.0, float(images.min())) - 1e-3
    assert found.max() <= max(7.0, float(images.max())) + 1e-3


def test_the_last_row_counts_only_where_it_is_said_to(folder: Path) -> None:
    images, matrices = images_of((3, 2, 9, 9), True, 0), torch.eye(3).repeat(3, 1, 1)
    matrices[:, 2, 0] = torch.tensor([0.03, 0, -0.05])
    expected = warping.warp(images, matrices, projective=True)
    with using(folder):
        found = warping.warp(images, matrices, projective=True)
        assert torch.equal(warping.warp(images, matrices), images.float())
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert [torch.equal(*pair) for pair in zip(found, images.float(), strict=True)] == [False, True, False]


@pytest.mark.parametrize("is_bytes", [True, False])
@pytest.mark.parametrize("bad", [NAN, INF, -INF, 1e38, -1e38, 1e10, 1e-45])
def test_whatever_the_matrix_it_reads_inside_the_image_or_fills(folder: Path, bad: float, is_bytes: bool) -> None:
    images = images_of((9, 3, 6, 21), is_bytes, seed=1)
    for kind in ("similar", "axes"):
        matrices = matrices_of(kind, images.shape, seed=2)
        matrices.view(9, 9)[range(9), range(9)] = bad  # another entry in each
        for projective in (False, True):
            expected = warping.warp(images, matrices, 300, projective=projective)
            with using(folder):
                found = warping.warp(images, matrices, 300, projective=projective)
            nowhere = expected.isnan()
            assert (found[nowhere] == 300).all()
            torch.testing.assert_close(found[~nowhere], expected[~nowhere], rtol=0, atol=0.01)


def test_what_is_not_finite_stays_where_the_image_has_it(folder: Path) -> None:
    images = torch.ones(4, 1, 6, 6)
    images[:, :, 0, 0], images[:, :, 5, 5] = NAN, INF
    moves = torch.tensor([2.5, -2.5, 9, -9])
    matrices = warping.translation(moves, torch.zeros(4))
    expected = warping.warp(images, matrices, 7)
    with using(folder):
        found = warping.warp(images, matrices, 7)
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert (found[2:] == 7).all()
    assert not found[:2].isfinite().all()


@SHARED
@given(
    shape=SHAPES,
    kind=st.sampled_from(KINDS),
    is_bytes=st.booleans(),
    number=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_bits_depend_on_neither_threads_nor_the_rest_of_the_batch(
    native: Library, shape: tuple[int, ...], kind: str, is_bytes: bool, number: int, seed: int
) -> None:
    images, matrices = images_of(shape, is_bytes, seed), matrices_of(kind, shape, seed)
    whole = native.warping.apply(images, matrices, 9, projective=True)
    alone = torch.cat(
        [native.warping.apply(images[n : n + 1], matrices[n : n + 1], 9, projective=True) for n in range(shape[0])]
    )
    assert torch.equal(alone, whole)
    with threads(number):
        assert torch.equal(native.warping.apply(images, matrices, 9, projective=True), whole)


@SHARED
@given(shape=SHAPES, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**16))
def test_bytes_are_as_their_floats_and_channels_as_alone(
    native: Library, shape: tuple[int, ...], kind: str, seed: int
) -> None:
    images, matrices = images_of(shape, True, seed), matrices_of(kind, shape, seed)
    whole = native.warping.apply(images, matrices, 9, projective=True)
    assert torch.equal(native.warping.apply(images.float(), matrices, 9, projective=True), whole)
    each = [native.warping.apply(images[:, c : c + 1], matrices, 9, projective=True) for c in range(shape[1])]
    assert torch.equal(torch.cat(each, dim=1), whole)


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (3, 2, 1, 1), (2, 3, 1, 40), (2, 1, 40, 1)])
def test_batches_without_images_and_images_of_a_pixel(native: Library, shape: tuple[int, ...]) -> None:
    images = images_of(shape, True, seed=0)
    result = native.warping.apply(images, matrices_of("whole", shape, 3), 0, projective=False)
    assert result.shape == images.shape
    assert torch.equal(
        native.warping.apply(images, matrices_of("identity", shape, 3), 0, projective=True), images.float()
    )


@pytest.mark.usefixtures("native")
def test_images_and_matrices_may_lie_otherwise() -> None:
    images, matrices = images_of((4, 3, 10, 12), True, 0), matrices_of("similar", (4, 3, 10, 12), 0)
    expected = warping.warp(images, matrices, 1)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(warping.warp(last, matrices.mT.contiguous().mT, 1), expected)
    assert warping.warp(last, matrices, 1).is_contiguous()
    assert torch.equal(warping.warp(images.flip(0)[::2], matrices.flip(0)[::2], 1), expected.flip(0)[::2])


@pytest.fixture
def refusing(native: Library, monkeypatch: pytest.MonkeyPatch) -> Library:
    """The library, of which no resampling is allowed."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(native.warping, "apply", refuse)
    return native


@pytest.mark.usefixtures("refusing")
def test_gradients_and_other_numbers_are_left_to_torch() -> None:
    images, matrices = images_of((2, 1, 5, 5), False, 0), matrices_of("similar", (2, 1, 5, 5), 0)
    with pytest.raises(AssertionError, match="was asked"):
        warping.warp(images, matrices)
    for trained in (images, matrices):
        trained.requires_grad_()
        warping.warp(images, matrices).sum().backward()
        assert trained.grad is not None
        with torch.no_grad(), pytest.raises(AssertionError, match="was asked"):
            warping.warp(images, matrices)
        trained.requires_grad_(False)
    assert warping.warp(images.double(), matrices).dtype == torch.float32


GROUPS: list[list[dict[str, Any]]] = [
    [{"type": "rotate"}, {"type": "horizontal_flip"}, {"type": "zoom"}, {"type": "translate"}],
    [{"type": "random_resized_crop", "fill": 30}],
    [{"type": "perspective"}],
    [{"type": "brightness"}, {"type": "perspective", "fill": 9}],
]


@pytest.mark.parametrize("group", GROUPS)
def test_augmentation_is_as_by_torch(folder: Path, group: list[dict[str, Any]]) -> None:
    images, labels = pictures(40, 3, 19, 23), torch.zeros(40, dtype=torch.int64)

    def augmented() -> Tensor:
        draws = Draws(torch.Generator().manual_seed(4), torch.arange(40), epoch=1, seed=0)
        return build_augmentation([parse(content) for content in group], 10)(images, labels, draws)[0]

    expected = augmented()
    with using(folder):
        found = augmented()
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert not torch.equal(found, expected)


def test_it_takes_the_whole_batch_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = pictures(6, 1, 10, 10), torch.zeros(6, dtype=torch.int64)
    sizes: list[int] = []
    warp = warping.warp

    def counted(images: Tensor, *rest: Any, **named: Any) -> Tensor:
        sizes.append(len(images))
        return warp(images, *rest, **named)

    monkeypatch.setattr(augmentation, "CHUNK_SIZE", 200)
    monkeypatch.setattr(warping, "warp", counted)
    augment = build_augmentation([parse({"type": "rotate"}), parse({"type": "brightness"})], 10)
    draws = Draws(torch.Generator(), torch.arange(6), epoch=1, seed=0)
    augment(images, labels, draws)
    with using(folder):
        augment(images, labels, draws)
    assert sizes == [2, 2, 2, 6]
