"""Every optimizer against its equation, computed here from plain tensors in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from cnn.data import Data
from cnn.learner import Learner
from cnn.optim.momentum import Nesterov
from cnn.optimizers import Optimizer
from tests.cnn.plain import LAYERS, Gradient, gradient_of, small_spec, standardized

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


def adamw(w: list[Tensor], g: Gradient, state: State, lr: float, k: int) -> list[Tensor]:
    step = [a - b for a, b in zip(adam(w, g, state, lr, k), w, strict=True)]
    return [a - lr * 0.1 * a + b for a, b in zip(w, step, strict=True)]


def amsgrad(w: list[Tensor], g: Gradient, state: State, lr: float, k: int) -> list[Tensor]:
    adam(w, g, state, lr, k)  # for its moments
    state["H"] = [torch.maximum(h, s) for h, s in zip(start(state, "H", w), state["G"], strict=True)]
    first = [v / (1 - 0.8**k) for v in state["V"]]
    second = [h / (1 - 0.99**k) for h in state["H"]]
    return [a - lr * v / (h.sqrt() + 1e-6) for a, v, h in zip(w, first, second, strict=True)]


def nadam(w: list[Tensor], g: Gradient, state: State, lr: float, k: int) -> list[Tensor]:
    mu = [0.8 * (1 - 0.5 * 0.96 ** (0.1 * j)) for j in range(1, k + 2)]
    gradients = g(w)
    adam(w, g, state, lr, k)  # for its moments
    ahead = [
        mu[k] * v / (1 - math.prod(mu)) + (1 - mu[k - 1]) * b / (1 - math.prod(mu[:k]))
        for v, b in zip(state["V"], gradients, strict=True)
    ]
    second = [s / (1 - 0.99**k) for s in state["G"]]
    return [a - lr * b / (s.sqrt() + 1e-6) for a, b, s in zip(w, ahead, second, strict=True)]


def adadelta(w: list[Tensor], g: Gradient, state: State, lr: float, _k: int) -> list[Tensor]:
    gradients = g(w)
    state["G"] = [0.8 * s + 0.2 * b * b for s, b in zip(start(state, "G", w), gradients, strict=True)]
    previous = start(state, "D", w)
    steps = [((d + 1e-4) / (s + 1e-4)).sqrt() * b for d, s, b in zip(previous, state["G"], gradients, strict=True)]
    state["D"] = [0.8 * d + 0.2 * b * b for d, b in zip(previous, steps, strict=True)]
    return [a - lr * b for a, b in zip(w, steps, strict=True)]


def lion(w: list[Tensor], g: Gradient, state: State, lr: float, _k: int) -> list[Tensor]:
    gradients, previous = g(w), start(state, "V", w)
    signs = [torch.sign(0.8 * v + 0.2 * b) for v, b in zip(previous, gradients, strict=True)]
    state["V"] = [0.95 * v + 0.05 * b for v, b in zip(previous, gradients, strict=True)]
    return [a - lr * (c + 0.1 * a) for a, c in zip(w, signs, strict=True)]


def newton_schulz(matrix: Tensor) -> Tensor:
    """Through the singular values: the iteration leaves the singular vectors as they are."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (s.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    result: Tensor = u @ torch.diag(s) @ v
    return result


def muon(w: list[Tensor], g: Gradient, state: State, lr: float, _k: int) -> list[Tensor]:
    """Kernel and matrix; the biases by Nesterov's method with a tenth of the learning rate."""
    ahead = [a + 0.8 * v for a, v in zip(w, start(state, "N", w), strict=True)]
    gradients = g([w[0], ahead[1], w[2], ahead[3]])
    state["N"] = [0.8 * v - 0.1 * lr * b for v, b in zip(start(state, "N", w), gradients, strict=True)]
    for matrix in (0, 2):
        state["N"][matrix].zero_()
    state["V"] = [0.9 * v + 0.1 * b for v, b in zip(start(state, "V", w), gradients, strict=True)]
    result = [a + v for a, v in zip(w, state["N"], strict=True)]
    for matrix, rows, columns in ((0, 4, 9), (2, 10, 64)):
        update = (0.9 * state["V"][matrix] + 0.1 * gradients[matrix]).reshape(rows, columns)
        direction = newton_schulz(update).reshape(w[matrix].shape)
        result[matrix] = w[matrix] - lr * (direction + 0.1 * w[matrix])
    return result


CASES: dict[str, tuple[dict[str, Any], Reference]] = {
    "sgd": ({"lr": 0.1}, sgd),
    "momentum": ({"lr": 0.05, "momentum": 0.8}, momentum),
    "nesterov": ({"lr": 0.05, "momentum": 0.8}, nesterov),
    "adagrad": ({"lr": 0.01, "eps": 1e-6}, adagrad),
    "rmsprop": ({"lr": 0.001, "alpha": 0.95, "eps": 1e-6}, rmsprop),
    "adam": ({"lr": 0.002, "betas": [0.8, 0.99], "eps": 1e-6}, adam),
    "adamw": ({"lr": 0.002, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.1}, adamw),
    "amsgrad": ({"lr": 0.002, "betas": [0.8, 0.99], "eps": 1e-6}, amsgrad),
    "nadam": ({"lr": 0.002, "betas": [0.8, 0.99], "eps": 1e-6, "momentum_decay": 0.1}, nadam),
    "adadelta": ({"lr": 0.5, "rho": 0.8, "eps": 1e-4}, adadelta),
    "lion": ({"lr": 0.001, "betas": [0.8, 0.95], "weight_decay": 0.1}, lion),
    "muon": (
        {
            "lr": 0.02,
            "momentum": 0.9,
            "weight_decay": 0.1,
            "partner": {"type": "nesterov", "lr": 0.002, "momentum": 0.8},
        },
        muon,
    ),
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
    weights = [torch.ones(3, 2, requires_grad=True), torch.ones(3, requires_grad=True)]
    spec = small_spec(optimizer={"type": name, **CASES[name][0]})
    optimizer = spec.optimizer.build_for(weights[:1], weights[1:])
    for weight in weights:
        weight.grad = torch.rand_like(weight)
    optimizer.step()
    before = [weight.detach().clone() for weight in weights]
    assert not any(torch.equal(weight, torch.ones_like(weight)) for weight in weights)
    for weight in weights:
        weight.grad = torch.full_like(weight, torch.nan)
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    assert all(torch.equal(weight, w) for weight, w in zip(weights, before, strict=True))


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
    for name in ("momentum", "nesterov"):  # which without momentum are gradient descent
        assert first_steps(name, [2, -1], lr=0.1, momentum=0) == pytest.approx([0.8, 0.9], abs=1e-12)
    # G: 9, 9 + 16.
    assert first_steps("adagrad", [3, 4], lr=0.1) == pytest.approx([0.9, 0.82], abs=1e-9)
    # γ = 0 keeps only the present: the step is μ times the sign, and not AdaGrad's.
    assert first_steps("rmsprop", [3, -4], lr=0.1, alpha=0) == pytest.approx([0.9, 1.0], abs=1e-8)
    # Bias correction makes the first step μ times the sign.
    assert first_steps("adam", [5], lr=0.1) == pytest.approx([0.9], abs=1e-8)
    # Both moments corrected, the first step of AdamW and AMSGrad is Adam's; AdamW takes λμ of the weight beside it.
    assert first_steps("adamw", [5], lr=0.1, weight_decay=0.5) == pytest.approx([0.85], abs=1e-8)
    assert first_steps("amsgrad", [5], lr=0.1) == pytest.approx([0.9], abs=1e-8)
    # G = 10, Δ = √(1e-6 / 10.000001) · 10.
    assert first_steps("adadelta", [10], rho=0.9) == pytest.approx([1 - 3.162277e-3], abs=1e-9)
    # C: 0.2, then 0.9 · 0.02 - 0.1.
    assert first_steps("lion", [2, -1], lr=0.1) == pytest.approx([0.9, 1.0], abs=1e-12)


def test_amsgrad_keeps_the_largest_second_moment() -> None:
    """One large gradient, and then nothing: where Adam's step grows again, this one does not."""
    fields: dict[str, Any] = {"lr": 0.1, "betas": [0.0, 0.5]}
    adam_path = first_steps("adam", [4, 1, 1, 1], **fields)
    amsgrad_path = first_steps("amsgrad", [4, 1, 1, 1], **fields)
    # G: 8, 4.5, 2.75, 1.875; corrected by 1 - 0.5ᵏ. H stays at 8.
    adam_steps = [1, (4.5 / 0.75) ** -0.5, (2.75 / 0.875) ** -0.5, (1.875 / 0.9375) ** -0.5]
    amsgrad_steps = [1, (8 / 0.75) ** -0.5, (8 / 0.875) ** -0.5, (8 / 0.9375) ** -0.5]
    for path, steps in ((adam_path, adam_steps), (amsgrad_path, amsgrad_steps)):
        expected = [1 - 0.1 * sum(steps[: k + 1]) for k in range(4)]
        assert path == pytest.approx(expected, abs=1e-7)


def test_muon_sends_matrices_to_itself_and_the_rest_to_its_partner(digits: Data) -> None:
    layers = [LAYERS[0], {"type": "layer_norm"}, *LAYERS[1:]]
    spec = small_spec(model={"type": "layers", "layers": layers}, optimizer={"type": "muon"})
    learner = Learner(spec, digits.train_images, digits.train_labels, torch.device("cpu"))
    images, labels = torch.from_numpy(digits.train_images[:32]), torch.from_numpy(digits.train_labels[:32])
    learner.update(1, 1, images, labels, 0.01)
    buffers = {name for name in learner.tensors() if name.endswith(".momentum_buffer")}
    assert buffers == {f"optimizer.{layer}.weight.momentum_buffer" for layer in ("conv1", "fc1")}
    moments = {name for name in learner.tensors() if name.endswith(".exp_avg")}
    others = ("conv1.bias", "layer_norm1.weight", "layer_norm1.bias", "fc1.bias")
    assert moments == {f"optimizer.{name}.exp_avg" for name in others}


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 3, 2, 2)])
def test_muons_directions_are_nearly_orthonormal(shape: tuple[int, ...]) -> None:
    weight = torch.zeros(shape, requires_grad=True)
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    small_spec(optimizer={"type": "muon", "lr": 1.0}).optimizer.build([weight]).step()
    matrix = weight.detach().flatten(1)
    scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    values = torch.linalg.svdvals(matrix) / scale
    assert 0.5 < values.min() <= values.max() < 1.25


@pytest.mark.parametrize("name", members())
def test_an_optimizer_round_trips_and_documents_its_fields(name: str) -> None:
    spec = small_spec(optimizer={"type": name})
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    optimizer = type(spec.optimizer)
    assert spec.optimizer == optimizer()
    assert optimizer.__doc__
    assert all(field.description for field_name, field in optimizer.model_fields.items() if field_name != "type")
