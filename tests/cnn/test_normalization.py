from __future__ import annotations

import numpy as np
import pytest
import torch

from cnn.normalization import BatchNorm, MinMax, Standardize

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


def test_batch_norm_normalizes_with_the_batch_and_remembers_it() -> None:
    module = BatchNorm(eps=1e-3, momentum=0.25).build((2, 3, 3))
    inputs = torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module.double()
    outputs = module(inputs)
    mean, variance = inputs.mean(dim=(0, 2, 3)), inputs.var(dim=(0, 2, 3), correction=0)
    expected = (inputs - mean[:, None, None]) / (variance[:, None, None] + 1e-3).sqrt()
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(module.running_mean, 0.25 * mean)
