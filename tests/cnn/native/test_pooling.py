"""Max-pooling by the library against torch: whole numbers, and so many ties, must come out exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import max_pool2d

from cnn.native.library import Library

LAST = torch.channels_last


def expected(x: Tensor, gradient: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """Output and gradient of the input, by torch."""
    leaf = x.clone().requires_grad_()
    output = max_pool2d(leaf, 2)
    output = output.relu() if relu else output
    output.backward(gradient)
    assert leaf.grad is not None
    return output.detach(), leaf.grad


def found(native: Library, x: Tensor, gradient: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    output, winners = native.pool(x.contiguous(memory_format=LAST), relu=relu, winners=True)
    assert winners is not None
    alone, _ = native.pool(x.contiguous(memory_format=LAST), relu=relu, winners=False)
    torch.testing.assert_close(alone, output, rtol=0, atol=0, equal_nan=True)
    return output, native.unpool(x.shape, winners, gradient.contiguous(memory_format=LAST))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(0, 4), st.integers(1, 40), st.integers(2, 9), st.integers(2, 9)),
    relu=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_values_and_gradients_are_those_of_torch(
    native: Library, shape: tuple[int, ...], relu: bool, threads: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, shape, generator=generator).float()
    gradient = torch.randn((*shape[:2], shape[2] // 2, shape[3] // 2), generator=generator)
    torch.set_num_threads(threads)
    output, of_x = found(native, x, gradient, relu)
    torch.set_num_threads(1)
    expected_output, expected_of_x = expected(x, gradient, relu)
    assert torch.equal(output, expected_output)
    assert torch.equal(of_x, expected_of_x)


@pytest.mark.parametrize("relu", [True, False])
def test_what_is_not_finite_passes_as_in_torch(native: Library, relu: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 17, 6, 6, generator=generator)
    gradient = torch.randn(8, 17, 3, 3, generator=generator)
    for part, bad in enumerate((float("nan"), float("inf"), float("-inf"))):
        x[torch.rand(x.shape, generator=generator) < 0.2] = bad
        gradient[torch.rand(gradient.shape, generator=generator) < 0.1 * part] = bad
    for value, reference in zip(found(native, x, gradient, relu), expected(x, gradient, relu), strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=0, equal_nan=True)
