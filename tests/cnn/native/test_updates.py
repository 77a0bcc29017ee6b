"""Optimizers and regularizers by the library: the equations, and bits that depend on the numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn.data import Data
from cnn.native.library import Library
from cnn.native.updates import NUM_COEFFICIENTS, Layout, Rule
from cnn.optim.base import ElementWise
from cnn.regularizers import L1, MaxNorm
from tests.cnn import test_learner, test_optimizers, test_regularizers
from tests.cnn.gan import test_adversaries
from tests.cnn.native.using import using
from tests.cnn.plain import small_spec

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
MEMBERS = test_optimizers.members()
WORTH_THREADS = 32768
"""As in `updates.cpp`."""
NUM_OPERANDS = {
    Rule.SGD: 2,
    Rule.MOMENTUM: 3,
    Rule.LOOKAHEAD: 3,
    Rule.ADAGRAD: 3,
    Rule.RMSPROP: 3,
    Rule.ADAM: 4,
    Rule.AMSGRAD: 5,
    Rule.NADAM: 4,
    Rule.ADADELTA: 4,
    Rule.LION: 3,
    Rule.L1: 2,
}


@pytest.fixture
def alone(native: Library, monkeypatch: pytest.MonkeyPatch) -> Library:
    """The library, beside which no step by torch is allowed."""

    def by_torch(self: ElementWise, *_: object) -> None:
        raise AssertionError(f"{type(self).__name__} took a step by torch")

    for optimizer in _below(ElementWise):
        monkeypatch.setattr(optimizer, "update", by_torch)
    return native


def _below(kind: type[ElementWise]) -> Iterator[type[ElementWise]]:
    for member in kind.__subclasses__():
        yield member
        yield from _below(member)


@pytest.mark.usefixtures("float64", "alone")
@pytest.mark.parametrize("lr_of", [test_optimizers.constant, test_optimizers.changing])
@pytest.mark.parametrize("name", MEMBERS)
def test_fifty_steps_follow_the_equation(
    name: str, lr_of: Callable[[float, int], float], digits: Data, batches: list[tuple[Tensor, Tensor]]
) -> None:
    test_optimizers.test_fifty_steps_follow_the_equation(name, lr_of, digits, batches)


@pytest.mark.usefixtures("float64", "alone")
def test_penalties_at_the_lookahead_point_and_max_norm(digits: Data, batches: list[tuple[Tensor, Tensor]]) -> None:
    test_regularizers.test_fifty_nesterov_steps_with_penalties_at_the_lookahead_point_and_max_norm(digits, batches)


@pytest.mark.usefixtures("alone")
def test_by_hand() -> None:
    test_optimizers.test_first_steps_by_hand()
    test_optimizers.test_amsgrad_keeps_the_largest_second_moment()
    test_optimizers.test_lookahead_stands_at_w_plus_decayed_velocity_and_gives_back_the_same_bits()
    test_regularizers.test_l1_is_the_weighted_sum_of_absolute_values_and_flat_at_zero()
    test_regularizers.test_max_norm_scales_the_long_rows_and_no_others()
    test_regularizers.test_max_norm_takes_all_that_enters_an_output_channel()


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("name", MEMBERS)
def test_a_closed_gate_leaves_the_weights(name: str) -> None:
    test_optimizers.test_a_closed_gate_leaves_the_weights(name)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_frozen_layers_stay_as_they_are(name: str, digits: Data, batches: list[tuple[Tensor, Tensor]]) -> None:
    test_learner.test_frozen_layers_stay_as_they_are(name, digits, batches)


@pytest.mark.usefixtures("alone")
def test_restored_adversaries_go_on_with_the_same_bits() -> None:
    test_adversaries.test_restored_adversaries_go_on_with_the_same_bits()


def test_adversaries_learn_what_they_would_by_torch(folder: Path) -> None:
    plain, native = test_adversaries.adversaries_of(), test_adversaries.adversaries_of()
    for step in range(4):
        batch = test_adversaries.batch(step)
        plain.update(*batch, test_adversaries.seeded(step))
        with using(folder):
            native.update(*batch, test_adversaries.seeded(step))
    expected, found = plain.tensors(), native.tensors()
    differences = [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]
    assert differences
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


@st.composite
def operands_of(draw: st.DrawFn, rule: Rule, size: int) -> list[Tensor]:
    """Lists of numbers that the rule takes; those of states are not negative, so that each has a root."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weights, gradients, *states = torch.randn(NUM_OPERANDS[rule], size, generator=generator)
    gradients[::7] = 0
    return [weights, gradients, *(state.square() for state in states)]


COEFFICIENTS = [0.3, 0.7, 0.2, 0.9, 0.1, 0.6, 0.4, 1e-3]


@SHARED
@given(
    rule=st.sampled_from(Rule),
    size=st.integers(1, 70) | st.integers(WORTH_THREADS - 3, WORTH_THREADS + 70),
    cuts=st.lists(st.integers(0, WORTH_THREADS), max_size=6),
    threads=st.integers(1, 3),
    data=st.data(),
)
def test_bits_depend_on_neither_place_nor_threads(
    native: Library, rule: Rule, size: int, cuts: list[int], threads: int, data: st.DataObject
) -> None:
    whole = data.draw(operands_of(rule, size))
    ends = [0, *sorted(cut % size for cut in cuts), size]
    pieces = [[numbers.clone()[a:b] for a, b in pairwise(ends)] for numbers in whole]
    before = torch.get_num_threads()
    layout = Layout.of([whole[0]])
    assert layout
    native.updates.apply(rule, layout, [[numbers] for numbers in whole], COEFFICIENTS)
    torch.set_num_threads(threads)
    layout = Layout.of(pieces[0])
    assert layout
    native.updates.apply(rule, layout, pieces, COEFFICIENTS)
    torch.set_num_threads(before)
    for numbers, cut in zip(whole, pieces, strict=True):
        assert torch.equal(numbers, torch.cat(cut))


@pytest.mark.parametrize("rule", Rule)
def test_float32_is_as_float64_to_its_precision(native: Library, rule: Rule) -> None:
    generator = torch.Generator().manual_seed(3)
    weights, gradients, *states = torch.randn(NUM_OPERANDS[rule], 1000, generator=generator)
    single = [[numbers] for numbers in (weights, gradients, *(state.square() for state in states))]
    double = [[numbers.double() for numbers in column] for column in single]
    for columns in (single, double):
        layout = Layout.of(columns[0])
        assert layout
        native.updates.apply(rule, layout, columns, COEFFICIENTS)
    for (found,), (expected,) in zip(single, double, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=3e-6)
    assert not torch.equal(double[0][0], weights.double())


def test_a_rule_that_is_not_there_is_refused(native: Library) -> None:
    layout = Layout.of([torch.ones(2)])
    assert layout
    with pytest.raises(ValueError, match="no kernel for 99"):
        native.updates.apply(99, layout, [[torch.ones(2)]], [0.0] * NUM_COEFFICIENTS)  # type: ignore[arg-type]


def stepped(name: str, weights: list[Tensor], gradients: list[Tensor]) -> Any:
    """An optimizer of one of the names after two steps, the first with another learning rate."""
    optimizer = small_spec(optimizer={"type": name, **test_optimizers.CASES[name][0]}).optimizer.build(weights)
    for factor in (2.0, 0.5):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient * factor
        optimizer.param_groups[0]["lr"] *= 0.5
        optimizer.step()
    return optimizer


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "muon"])
def test_weights_and_states_may_lie_channels_last(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 3, 5, 3), (4, 1, 3, 3), (1, 5, 2, 2), (7,)]
    values, gradients = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))

    def laid_out(tensors: list[Tensor]) -> list[Tensor]:
        return [t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]

    plain = [value.clone().requires_grad_() for value in values]
    last = [value.clone().requires_grad_() for value in laid_out(values)]
    # The gradients of (4, 1, 3, 3) have strides of their own for the one channel, which say nothing.
    others = laid_out(gradients)
    others[1] = gradients[1].clone(memory_format=torch.contiguous_format)
    first, second = stepped(name, plain, gradients), stepped(name, last, others)
    for one, other in zip(plain, last, strict=True):
        assert torch.equal(one, other)
        assert first.state[one].keys() == second.state[other].keys()
        for key, state in first.state[one].items():
            assert torch.equal(state, second.state[other][key])


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in ("muon", "nesterov")])
@pytest.mark.parametrize("kind", ["bfloat16", "transposed"])
def test_what_it_cannot_walk_through_is_left_to_torch(folder: Path, name: str, kind: str) -> None:
    def weights() -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        first, second = (torch.randn(5, 4, generator=generator) for _ in range(2))
        if kind == "bfloat16":
            first, second = first.bfloat16(), second.bfloat16()
        else:
            second = second.T
        return [first.requires_grad_(), second.requires_grad_()]

    expected, found = weights(), weights()
    assert Layout.of(found) is None
    stepped(name, expected, [torch.ones_like(weight) for weight in expected])
    with using(folder):
        stepped(name, found, [torch.ones_like(weight) for weight in found])
    assert all(map(torch.equal, found, expected))


def test_a_layout_tells_what_lies_otherwise() -> None:
    weight = torch.zeros(4, 3, 2, 2)
    layout = Layout.of([weight, torch.zeros(3)])
    assert layout
    assert layout.is_that_of([torch.ones(4, 3, 2, 2), torch.ones(3)])
    assert not layout.is_that_of([weight.contiguous(memory_format=torch.channels_last), torch.ones(3)])
    assert not layout.is_that_of([weight, torch.zeros(6)[::2]])
    assert Layout.of([torch.zeros(6, 2)[:, :1]]) is None
    assert Layout.of([torch.zeros(2, dtype=torch.int64)]) is None
    assert Layout.of([torch.zeros(2), torch.zeros(2, dtype=torch.float64)]) is None


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("threads", [1, 3])
def test_max_norm_limits_all_rows_of_large_weights(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 16, 3, 3), (1, 7), (130, 801), (0, 5), (3, 5), (40, 33, 5, 5)]
    weights = [torch.randn(shape, generator=generator) * 0.1 for shape in shapes]
    weights[0] = weights[0].contiguous(memory_format=torch.channels_last)
    expected = []
    for weight in weights:
        norms = weight.double().square().sum(dim=tuple(range(1, weight.ndim)), keepdim=True).sqrt()
        expected.append(weight.double() * (2.0 / norms).clamp(max=1))
    unlimited = [weight.clone() for weight in weights]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    MaxNorm(max_value=2.0).project(weights)
    torch.set_num_threads(before)
    for weight, value, old in zip(weights, expected, unlimited, strict=True):
        torch.testing.assert_close(weight.double(), value, rtol=2e-6, atol=0)
        unchanged = old.double() == value
        assert torch.equal(weight[unchanged], old[unchanged])
    MaxNorm(max_value=2.0).project(unlimited)
    assert all(map(torch.equal, weights, unlimited))


def test_what_is_not_finite_passes_max_norm_as_with_torch(folder: Path) -> None:
    weight = torch.ones(4, 3)
    weight[0, 1], weight[1, 0], weight[2] = float("nan"), float("inf"), 1e30
    expected, found = weight.clone(), weight.clone()
    MaxNorm(max_value=1.0).project([expected])
    with using(folder):
        MaxNorm(max_value=1.0).project([found])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0, equal_nan=True)
    assert found.isnan().sum() == 4


@pytest.mark.usefixtures("native")
def test_l1_finds_gradients_that_lie_otherwise() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    gradient = torch.zeros(2, 2).T.contiguous().T
    assert gradient.stride() != weight.stride()
    L1(weight=0.5).add_gradient([weight], [gradient])
    assert torch.equal(gradient, torch.tensor([[0.5, -0.5], [0.0, 0.5]]))


@pytest.mark.usefixtures("alone")
def test_moments_below_the_normal_range_become_zero_as_torchs_do() -> None:
    """The moment of a dead unit's weight shrinks to such numbers, each of which would cost some hundred cycles."""
    weight = torch.ones(100, requires_grad=True)
    optimizer = small_spec(optimizer={"type": "adam"}).optimizer.build([weight])
    optimizer.state[weight]["exp_avg"].fill_(torch.finfo(torch.float32).tiny)
    weight.grad = torch.zeros(100)
    torch.set_flush_denormal(True)
    try:
        optimizer.step()
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(optimizer.state[weight]["exp_avg"], torch.zeros(100))


def test_there_is_a_rule_for_every_optimizer_but_muon() -> None:
    rules = {rule.name.lower() for rule in Rule} - {"lookahead", "l1"}
    assert rules | {"adamw", "nesterov", "muon"} == set(MEMBERS)
