"""Every optimizer against its equation, computed here from plain tensors in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from cnn.data import Data
from cnn.learner import Learner
from cnn.optim.momentum import Nesterov
from cnn.optimizers import Optimizer
from tests.cnn.plain import Gradient, gradient_of, small_spec, standardized

State = dict[str, list[Tensor]]
Reference = Callable[[list[Tensor], Gradient, State, float, int], list[Tensor]]


def start(state: State, name: str, weights: list[Tensor]) -> list[Tensor]:
    return state.get(name, [torch.zeros_like(weight) for weight in weights])


def sgd(w: list[Tensor], g: Gradient, _state: State, lr: float, _k: int) -> list[Tensor]:
    return [a - lr * b for a, b in zip(w, g(w), strict=True)]


def momentum(w: list[Tensor], g: Gradient, state: State, lr: float, _k: int) -> list[Tensor]:
    state["V"] = [0.8 * v - lr * b for v, b in zip(start(state, "V", w), g(w), strict=True)]
    return [a + v for a, v in zip(w, state["V"], strict=True)]


def nesterov(w: list[Tensor], g: Gradient, state: State, lr: float, _k: int) -> list[Tensor]:
    ahead = [a + 0.8 * v for a, v in zip(w, start(state, "V", w), strict=True)]
    state["V"] = [0.8 * v - lr * b for v, b in zip(start(state, "V", w), g(ahead), strict=True)]
    return [a + v for a, v in zip(w, state["V"], strict=True)]


def adagrad(w: list[Tensor], g: Gradient, state: State, lr: float, _k: int) -> list[Tensor]:
    gradients = g(w)
    state["G"] = [s + b * b for s, b in zip(start(state, "G", w), gradients, strict=True)]
    return [a - lr * b / (s.sqrt() + 1e-6) for a, b, s in zip(w, gradients, state["G"], strict=True)]


def rmsprop(w: list[Tensor], g: Gradient, state: State, lr: float, _k: int) -> list[Tensor]:
    gradients = g(w)
    state["G"] = [0.95 * s + 0.05 * b * b for s, b in zip(start(state, "G", w), gradients, strict=True)]
    return [a - lr * b / (s.sqrt() + 1e-6) for a, b, s in zip(w, gradients, state["G"], strict=True)]


def adam(w: list[Tensor], g: Gradient, state: State, lr: float, k: int) -> list[Tensor]:
    gradients = g(w)
    state["V"] = [0.8 * v + 0.2 * b for v, b in zip(start(state, "V", w), gradients, strict=True)]
    state["G"] = [0.99 * s + 0.01 * b * b for s, b in zip(start(state, "G", w), gradients, strict=True)]
    first = [v / (1 - 0.8**k) for v in state["V"]]
    second = [s / (1 - 0.99**k) for s in state["G"]]
    return [a - lr * v / (s.sqrt() + 1e-6) for a, v, s in zip(w, first, second, strict=True)]


CASES: dict[str, tuple[dict[str, Any], Reference]] = {
    "sgd": ({"lr": 0.1}, sgd),
    "momentum": ({"lr": 0.05, "momentum": 0.8}, momentum),
    "nesterov": ({"lr": 0.05, "momentum": 0.8}, nesterov),
    "adagrad": ({"lr": 0.01, "eps": 1e-6}, adagrad),
    "rmsprop": ({"lr": 0.001, "alpha": 0.95, "eps": 1e-6}, rmsprop),
    "adam": ({"lr": 0.002, "betas": [0.8, 0.99], "eps": 1e-6}, adam),
}


def members() -> list[str]:
    union = get_args(Optimizer.__value__)[0]
    return [member.model_fields["type"].default for member in get_args(union)]


def constant(lr: float, _k: int) -> float:
    return lr


def changing(lr: float, k: int) -> float:
    return lr * (1 + k % 5) / 5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("lr_of", [constant, changing])
@pytest.mark.parametrize("name", members())
def test_fifty_steps_follow_the_equation(
    name: str, lr_of: Callable[[float, int], float], digits: Data, batches: list[tuple[Tensor, Tensor]]
) -> None:
    fields, reference = CASES[name]
    spec = small_spec(optimizer={"type": name, **fields})
    learner = Learner(spec, digits.train_images, digits.train_labels, torch.device("cpu"))
    expected = [parameter.detach().clone() for parameter in learner.network.parameters()]
    all_images = torch.from_numpy(digits.train_images)
    state: State = {}
    for k, (images, labels) in enumerate(batches, start=1):
        lr = lr_of(fields["lr"], k)
        learner.update(1, k, images, labels, lr)
        expected = reference(expected, gradient_of(standardized(images, all_images), labels), state, lr, k)
        for parameter, value in zip(learner.network.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=1e-12)


def test_torchs_momentum_is_another_method_under_a_changing_learning_rate() -> None:
    """What the equation test above would miss if it only knew constant learning rates."""
    weights = {}
    for name in ("classical", "torch"):
        weight = torch.ones(1, requires_grad=True)
        spec = small_spec(optimizer={"type": "momentum", "lr": 1.0, "momentum": 0.5}).optimizer
        optimizer = spec.build([weight]) if name == "classical" else torch.optim.SGD([weight], 1.0, momentum=0.5)
        for lr in (1.0, 0.1):
            optimizer.param_groups[0]["lr"] = lr
            weight.grad = torch.ones(1)
            optimizer.step()
        weights[name] = weight.item()
    # V: -1, then -0.5 - 0.1; torch's: 1 · 1, then 0.1 · (0.5 + 1).
    assert weights == pytest.approx({"classical": 1 - 1 - 0.6, "torch": 1 - 1 - 0.15}, abs=1e-6)


def test_lookahead_stands_at_w_plus_decayed_velocity_and_gives_back_the_same_bits() -> None:
    weights = [torch.randn(3, 2, requires_grad=True), torch.randn(5, requires_grad=True)]
    optimizer = Nesterov(weights, lr=0.3, momentum=0.7)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()
    before = [weight.detach().clone() for weight in weights]
    with optimizer.lookahead():
        for weight, w in zip(weights, before, strict=True):
            expected = w + 0.7 * optimizer.state[weight]["velocity"]
            torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-6)
            assert not torch.equal(weight, w)
    assert all(torch.equal(weight, w) for weight, w in zip(weights, before, strict=True))


def test_lookahead_gives_back_the_weights_after_an_error() -> None:
    weight = torch.ones(2, requires_grad=True)
    optimizer = Nesterov([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.ones(2)
    optimizer.step()
    before = weight.detach().clone()
    with pytest.raises(ZeroDivisionError), optimizer.lookahead():
        _ = 1 / 0
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", members())
def test_a_closed_gate_leaves_the_weights(name: str) -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = small_spec(optimizer={"type": name}).optimizer.build([weight])
    weight.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = torch.zeros(3)
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    assert torch.equal(weight, before)


def first_steps(name: str, gradients: Iterable[float], **fields: Any) -> list[float]:
    """A single weight of 1 after each step."""
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = small_spec(optimizer={"type": name, **fields}).optimizer.build([weight])
    path = []
    for gradient in gradients:
        weight.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer.step()
        path.append(weight.item())
    return path


def test_first_steps_by_hand() -> None:
    assert first_steps("sgd", [2, -1], lr=0.1) == pytest.approx([0.8, 0.9], abs=1e-12)
    assert first_steps("momentum", [2, -1], lr=0.1, momentum=0.5) == pytest.approx([0.8, 0.8], abs=1e-12)
    # G: 9, 9 + 16.
    assert first_steps("adagrad", [3, 4], lr=0.1) == pytest.approx([0.9, 0.82], abs=1e-9)
    # γ = 0 keeps only the present: the step is μ times the sign, and not AdaGrad's.
    assert first_steps("rmsprop", [3, -4], lr=0.1, alpha=0) == pytest.approx([0.9, 1.0], abs=1e-8)
    # Bias correction makes the first step μ times the sign.
    assert first_steps("adam", [5], lr=0.1) == pytest.approx([0.9], abs=1e-8)
