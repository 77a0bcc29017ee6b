from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from cnn.base import Spec
from cnn.normalization import GlobalContrast, MinMax, Normalization, PerImageStandardize, Standardize, ZCAWhitening

IMAGES = np.random.default_rng(0).integers(10, 200, size=(50, 3, 4, 5), dtype=np.uint8)


def test_standardize_is_mean_and_deviation_of_each_channel() -> None:
    statistics = Standardize().fit(IMAGES)
    pixels = IMAGES.astype(np.float64)
    np.testing.assert_allclose(statistics["mean"], pixels.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(statistics["std"], pixels.std(axis=(0, 2, 3)), rtol=1e-7)
    module = Standardize().build((3, 4, 5))
    module.load_state_dict(statistics)
    outputs = module(torch.from_numpy(IMAGES)).double()
    torch.testing.assert_close(outputs.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(outputs.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-6, rtol=0)


def test_min_max_maps_the_extremes_of_each_channel_to_0_and_1() -> None:
    module = MinMax().build((3, 4, 5))
    module.load_state_dict(MinMax().fit(IMAGES))
    outputs = module(torch.from_numpy(IMAGES))
    assert outputs.amin(dim=(0, 2, 3)).tolist() == [0, 0, 0]
    assert outputs.amax(dim=(0, 2, 3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("normalization", [Standardize(), MinMax()], ids=lambda spec: spec.type)
def test_a_constant_channel_becomes_zero(normalization: Standardize | MinMax) -> None:
    images = np.full((4, 1, 2, 2), 7, dtype=np.uint8)
    module = normalization.build((1, 2, 2))
    module.load_state_dict(normalization.fit(images))
    assert not module(torch.from_numpy(images)).any()


@pytest.mark.parametrize("member", get_args(get_args(Normalization.__value__)[0]), ids=lambda member: member.__name__)
def test_every_normalization_round_trips_and_fills_the_buffers_of_its_module(member: type[Spec]) -> None:
    spec = TypeAdapter(Normalization).validate_json(member().model_dump_json())
    assert spec == member()
    assert all(field.description for name, field in member.model_fields.items() if name != "type")
    module = spec.build((3, 4, 5))
    module.load_state_dict(spec.fit(IMAGES))
    outputs = module(torch.from_numpy(IMAGES))
    assert outputs.shape == IMAGES.shape
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(module(torch.from_numpy(IMAGES).float()), outputs)


def test_per_image_standardize_uses_each_image_alone() -> None:
    outputs = PerImageStandardize().build((3, 4, 5))(torch.from_numpy(IMAGES)).double().numpy()
    pixels = IMAGES.astype(np.float64)
    axes = (1, 2, 3)
    expected = (pixels - pixels.mean(axes, keepdims=True)) / pixels.std(axes, keepdims=True)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    flat = torch.full((1, 3, 4, 5), 9.0)
    flat[0, 0, 0, 0] = 10  # deviation sqrt(59)/60 = 0.128, just below the bound 1/sqrt(60) = 0.129
    outputs = PerImageStandardize().build((3, 4, 5))(flat)
    assert outputs[0, 0, 0, 0].item() == pytest.approx((1 - 1 / 60) * 60**0.5, rel=1e-5)


def test_global_contrast_follows_the_book() -> None:
    outputs = GlobalContrast(scale=2.0, bias=0.5).build((3, 4, 5))(torch.from_numpy(IMAGES)).double().numpy()
    pixels = IMAGES / 255
    axes = (1, 2, 3)
    expected = 2 * (pixels - pixels.mean(axes, keepdims=True)) / np.sqrt(0.5 + pixels.var(axes, keepdims=True))
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_zca_whitening_gives_unit_covariance_without_turning_the_image() -> None:
    images = np.random.default_rng(1).integers(0, 256, size=(4000, 1, 3, 3), dtype=np.uint8)
    images[:, 0, 0, 1] = images[:, 0, 0, 0] // 2 + images[:, 0, 0, 1] // 2  # correlated neighbours
    spec = ZCAWhitening(eps=1e-8)
    module = spec.build((1, 3, 3))
    module.load_state_dict(spec.fit(images))
    outputs = module(torch.from_numpy(images)).flatten(1).double().numpy()
    np.testing.assert_allclose(np.cov(outputs.T, ddof=0), np.eye(9), atol=1e-4)
    matrix = spec.fit(images)["matrix"]
    torch.testing.assert_close(matrix, matrix.T)  # the symmetric root: no rotation
