from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from cnn import base
from cnn.normalization_layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm

INPUTS = torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EPS = 1e-3


def normalized(values: Tensor, groups: list[tuple[slice | int, ...]]) -> Tensor:
    """Each group of values with mean 0 and variance 1, up to EPS: element by element, as the papers write it."""
    outputs = torch.empty_like(values)
    for group in groups:
        mean, variance = values[group].mean(), values[group].var(correction=0)
        outputs[group] = (values[group] - mean) / (variance + EPS) ** 0.5
    return outputs


ALL = slice(None)
GROUPS: list[tuple[base.Layer, list[tuple[slice | int, ...]]]] = [
    (BatchNorm(eps=EPS), [(ALL, channel) for channel in range(6)]),
    (LayerNorm(eps=EPS), [(sample,) for sample in range(3)]),
    (GroupNorm(num_groups=2, eps=EPS), [(n, slice(3 * g, 3 * g + 3)) for n, g in product(range(3), range(2))]),
    (InstanceNorm(eps=EPS, affine=True), list(product(range(3), range(6)))),
]


@pytest.mark.parametrize(("layer", "groups"), GROUPS, ids=lambda value: getattr(value, "type", ""))
def test_each_normalizes_over_its_group_then_scales_and_shifts_channels(
    layer: base.Layer, groups: list[tuple[slice | int, ...]]
) -> None:
    module = layer.build((6, 4, 5)).double()
    weight, bias = torch.randn(2, 6, dtype=torch.float64)
    module.load_state_dict({"weight": weight, "bias": bias}, strict=False)
    expected = normalized(INPUTS, groups) * weight[:, None, None] + bias[:, None, None]
    torch.testing.assert_close(module(INPUTS), expected, rtol=1e-12, atol=1e-12)


def test_batch_norm_remembers_batches_and_uses_the_memory_at_test() -> None:
    module = BatchNorm(momentum=0.25, eps=EPS).build((6, 4, 5)).double()
    module(INPUTS)
    mean = 0.25 * INPUTS.mean(dim=(0, 2, 3))
    variance = 0.75 + 0.25 * INPUTS.var(dim=(0, 2, 3), correction=1)
    torch.testing.assert_close(module.running_mean, mean)
    torch.testing.assert_close(module.running_var, variance)
    expected = (INPUTS - mean[:, None, None]) / (variance[:, None, None] + EPS) ** 0.5
    torch.testing.assert_close(module.eval()(INPUTS), expected)


def test_local_response_norm_divides_by_the_activity_of_neighbouring_channels() -> None:
    module = LocalResponseNorm(size=3, alpha=0.5, beta=0.75, k=2.0).build((6, 4, 5)).double()
    expected = torch.empty_like(INPUTS)
    for c in range(6):
        activity = INPUTS[:, max(c - 1, 0) : c + 2].square().sum(dim=1)
        expected[:, c] = INPUTS[:, c] / (2.0 + 0.5 / 3 * activity) ** 0.75
    torch.testing.assert_close(module(INPUTS), expected)
