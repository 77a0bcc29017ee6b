"""The kernel against torch in float64: whole numbers must come out exactly, ties and all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from cnn.native.library import KERNELS, Library

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@dataclass(frozen=True)
class Case:
    """A block and what goes in."""

    images: Tensor
    weight: Tensor
    bias: Tensor | None
    padding: int
    relu: bool

    @property
    def convolved(self) -> Tensor:
        """By torch, in the precision of the weight."""
        bias = None if self.bias is None else self.bias.to(self.weight.dtype)
        return conv2d(self.images.to(self.weight.dtype), self.weight, bias, padding=self.padding)

    @property
    def reference(self) -> Tensor:
        pooled = max_pool2d(self.convolved, 2)
        return pooled.relu() if self.relu else pooled

    @property
    def arguments(self) -> dict[str, Any]:
        return {"padding": self.padding, "relu": self.relu}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel_size, channels = draw(st.sampled_from(sorted(KERNELS)))
    padding = draw(st.integers(0, kernel_size // 2))
    side = st.integers(max(2, kernel_size + 1 - 2 * padding), 15)
    count, filters = draw(st.integers(0, 5)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def numbers(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=generator).float()

    images = numbers(count, channels, draw(side), draw(side))
    if draw(st.booleans()):
        images = images.contiguous(memory_format=torch.channels_last)
    bias = numbers(filters) if draw(st.booleans()) else None
    return Case(images, numbers(filters, channels, kernel_size, kernel_size), bias, padding, draw(st.booleans()))


def random_case(*shape: int, filters: int = 32, kernel_size: int = 3) -> Case:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(shape, generator=generator)
    weight = torch.randn(filters, shape[1], kernel_size, kernel_size, generator=generator)
    return Case(images, weight, torch.randn(filters, generator=generator), kernel_size // 2, relu=True)


def gradients(native: Library, case: Case, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the gradients of weight and bias."""
    output, winners = native.forward(case.images, case.weight, case.bias, **case.arguments, winners=True)
    assert winners is not None
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    return output, *native.backward(case.images, case.weight, winners, gradient, padding=case.padding)


def expected_gradients(case: Case, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by torch in float64."""
    bias = torch.zeros(len(case.weight)) if case.bias is None else case.bias
    leaves = case.weight.double().requires_grad_(), bias.double().requires_grad_()
    output = Case(case.images, *leaves, case.padding, case.relu).reference
    output.backward(gradient.double())
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    return output.detach(), leaves[0].grad, leaves[1].grad


@SHARED
@given(case=cases(), threads=st.integers(1, 3))
def test_whole_numbers_come_out_exactly(native: Library, case: Case, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randint(-3, 4, case.reference.shape, generator=generator).float()
    found = gradients(native, case, gradient)
    torch.set_num_threads(before)
    for value, reference in zip(found, expected_gradients(case, gradient), strict=True):
        assert torch.equal(value.double(), reference)


@pytest.mark.parametrize(
    ("shape", "kernel_size"),
    [((128, 1, 28, 28), 3), ((33, 3, 32, 32), 3), ((2, 3, 96, 61), 3), ((128, 1, 28, 28), 5), ((2, 2, 61, 96), 5)],
)
def test_real_numbers_come_out_to_the_precision_of_float32(
    native: Library, shape: tuple[int, ...], kernel_size: int
) -> None:
    case = random_case(*shape, kernel_size=kernel_size)
    gradient = torch.randn(case.reference.shape, generator=torch.Generator().manual_seed(1))
    # Where the two largest values of a window are as good as equal, or the largest as good as 0, rounding decides.
    values = Case(case.images, case.weight.double(), case.bias, case.padding, relu=False).convolved
    windows = values[..., : values.shape[2] // 2 * 2, : values.shape[3] // 2 * 2].unfold(2, 2, 2).unfold(3, 2, 2)
    first, second = windows.flatten(-2).topk(2).values.unbind(-1)
    gradient[(first - second < 1e-4) | (first.abs() < 1e-4)] = 0
    for value, reference in zip(gradients(native, case, gradient), expected_gradients(case, gradient), strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=float(3e-6 * reference.abs().max()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("relu", [True, False])
def test_what_is_not_finite_passes_as_in_torch(native: Library, bad: float, relu: bool) -> None:
    case = random_case(3, 2, 9, 9)
    case.images[1, 1, 4, 3] = bad
    case = Case(case.images, case.weight, case.bias, case.padding, relu)
    expected = case.reference
    output, _ = native.forward(case.images, case.weight, case.bias, **case.arguments, winners=False)
    assert torch.equal(output.isnan(), expected.isnan())
    assert torch.equal(output.isinf(), expected.isinf())
    torch.testing.assert_close(output, expected, equal_nan=True)
    ones = torch.ones_like(expected)
    _, of_weight, of_bias = gradients(native, case, ones)
    _, expected_weight, expected_bias = expected_gradients(case, ones)
    assert torch.equal(of_weight.isfinite(), expected_weight.isfinite())
    torch.testing.assert_close(of_bias.double(), expected_bias)


def test_gradients_that_are_not_finite_reach_the_weights_of_their_filter_alone(native: Library) -> None:
    case = random_case(2, 1, 8, 8)
    gradient = torch.ones(case.reference.shape)
    output, *_ = gradients(native, case, gradient)
    place = tuple((output[:, 5] > 0).nonzero()[0].tolist())
    gradient[place[0], 5, place[1], place[2]] = float("nan")
    _, of_weight, of_bias = gradients(native, case, gradient)
    assert of_bias.isnan().nonzero().flatten().tolist() == [5]
    assert of_weight[5].isnan().any()
    assert of_weight[torch.arange(32) != 5].isfinite().all()


def test_gradients_where_relu_is_closed_reach_nothing_finite_or_not(native: Library) -> None:
    case = random_case(2, 1, 8, 8)
    closed = case.reference == 0
    assert closed.any()
    gradient = torch.full(closed.shape, float("nan")).where(closed, torch.ones(()))
    _, *found = gradients(native, case, gradient)
    _, *expected = gradients(native, case, torch.ones(closed.shape).where(~closed, torch.zeros(())))
    assert all(map(torch.equal, found, expected))


def test_an_image_gives_the_same_bits_in_every_batch(native: Library) -> None:
    case = random_case(7, 3, 11, 10, filters=18)
    whole, _ = native.forward(case.images, case.weight, case.bias, **case.arguments, winners=False)
    for index, image in enumerate(case.images.split(1)):
        alone, _ = native.forward(image, case.weight, case.bias, **case.arguments, winners=True)
        assert torch.equal(alone[0], whole[index])


@pytest.mark.parametrize("kernel_size", range(1, 8))
@pytest.mark.parametrize("channels", range(1, 6))
def test_a_block_without_a_kernel_is_refused(native: Library, kernel_size: int, channels: int) -> None:
    images, weight = torch.zeros(1, channels, 8, 8), torch.zeros(2, channels, kernel_size, kernel_size)

    def forward() -> Tensor:
        return native.forward(images, weight, None, padding=0, relu=True, winners=False)[0]

    if (kernel_size, channels) in KERNELS:
        assert forward().shape[:2] == (1, 2)
        return
    with pytest.raises(ValueError, match=f"no kernel for {channels} channels and kernels of side {kernel_size}"):
        forward()


TWICE_ON_TWO_THREADS = """
import os, pathlib, sys, torch
from cnn.determinism import set_threads
from cnn.native import library

def num_threads():
    return len(os.listdir("/proc/self/task"))

set_threads(2)
torch.manual_seed(0)
images, weight = torch.randn(64, 1, 28, 28), torch.randn(32, 1, 3, 3)
gradient = torch.randn(64, 14, 14, 32).permute(0, 3, 1, 2)
torch.nn.functional.conv2d(images, weight)
before = num_threads()
native = library.find(pathlib.Path(sys.argv[1]))
both = []
for _ in range(2):
    output, winners = native.forward(images, weight, None, padding=1, relu=True, winners=True)
    both.append((output, *native.backward(images, weight, winners, gradient, padding=1)))
openmp = {line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.split()[-1].rsplit("/", 1)[-1]}
print(before, num_threads() - before, len(openmp), all(map(torch.equal, *both)))
"""


def test_two_threads_are_those_of_torch_and_repeat_the_bits(folder: Path) -> None:
    command = [sys.executable, "-c", TWICE_ON_TWO_THREADS, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    before, added, num_libraries, equal = done.stdout.split()
    assert int(before) >= 2
    assert (added, num_libraries, equal) == ("0", "1", "True")
