from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cnn.transforms.selection import change, select

DTYPES = [torch.uint8, torch.float32]


def pictures(dtype: torch.dtype, height: int = 3, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (5, 2, height, width), generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(3, 4), (3, 3)])  # of whole groups of eight bytes, or not
@pytest.mark.parametrize("chosen", [[1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
def test_only_chosen_samples_are_changed(dtype: torch.dtype, size: tuple[int, int], chosen: list[int]) -> None:
    images = pictures(dtype, *size)
    seen: list[int] = []

    def upside_down(samples: Tensor, rows: Tensor) -> Tensor:
        assert torch.equal(samples, images[rows])
        seen.extend(rows.tolist())
        return samples.flip(2)

    result = change(images.clone(), torch.tensor(chosen).bool(), upside_down)
    assert seen == [row for row, yes in enumerate(chosen) if yes]
    for row, yes in enumerate(chosen):
        assert torch.equal(result[row], images[row].flip(1) if yes else images[row])


def test_a_sample_may_come_back_as_a_view() -> None:
    result = change(pictures(torch.float32), torch.tensor([1, 0, 0, 0, 0]).bool(), lambda s, _: s[:, :1].expand_as(s))
    assert torch.equal(result[0, 0], result[0, 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_inside_come_from_the_new_images(dtype: torch.dtype) -> None:
    images, new = pictures(dtype), pictures(dtype).flip(0)
    inside = torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(4)) < 0.5
    assert torch.equal(select(inside, new, images), torch.where(inside, new, images))


def test_pixels_that_are_no_numbers_stay_where_they_are() -> None:
    images = torch.tensor([[[[1.0, -0.0]]]])
    result = select(torch.tensor([[[[True, False]]]]), torch.full_like(images, torch.nan), images)
    assert result.isnan().flatten().tolist() == [True, False]
    assert bool(result[0, 0, 0, 1].signbit())
