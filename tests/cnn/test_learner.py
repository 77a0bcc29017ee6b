from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn.data import Data
from cnn.learner import Learner, initialized_network
from tests.cnn.plain import BATCH, LAYERS, gradient_of, small_spec, standardized

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor]


def learner_of(digits: Data, **parts: Any) -> Learner:
    return Learner(small_spec(**parts), digits.train_images, digits.train_labels, CPU)


def parameters(learner: Learner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learner.network.parameters()]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_images", [32, 29])
def test_accumulated_minibatches_give_the_update_of_the_large_batch(
    num_images: int, digits: Data, batches: list[Batch]
) -> None:
    large = learner_of(digits, training={"batch_size": 32})
    small = learner_of(digits, training={"batch_size": 8, "accumulate": 4})
    for k, (images, labels) in enumerate(batches[:10], start=1):
        for learner in (large, small):
            learner.update(1, k, images[:num_images], labels[:num_images], 0.1)
    for one, other in zip(parameters(large), parameters(small), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert large.totals.means() == pytest.approx(small.totals.means(), abs=1e-12)


@pytest.mark.usefixtures("float64")
def test_gradients_are_cut_to_their_global_norm(digits: Data, batches: list[Batch]) -> None:
    learner = learner_of(digits, training={"batch_size": BATCH, "max_grad_norm": 1.5})
    expected = parameters(learner)
    cut = 0
    for k, (images, labels) in enumerate(batches, start=1):
        learner.update(1, k, images, labels, 0.1)
        gradients = gradient_of(standardized(images, torch.from_numpy(digits.train_images)), labels)(expected)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).square().sum().sqrt()
        cut += int(norm > 1.5)
        expected = [w - 0.1 * g * min(1.0, 1.5 / norm.item()) for w, g in zip(expected, gradients, strict=True)]
        for parameter, value in zip(learner.network.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=1e-12)
    assert 0 < cut < len(batches)


def test_gradients_do_not_outlive_their_step(digits: Data, batches: list[Batch]) -> None:
    """A gradient that knows a graph to its weight is a cycle, which stays until the garbage collector comes."""
    learner = learner_of(digits, regularizers=[{"type": "l2", "weight": 1e-3}, {"type": "l1", "weight": 1e-5}])
    gc.disable()
    try:
        learner.update(1, 1, *batches[0], lr=0.1)
        gradients = [weakref.ref(parameter.grad) for parameter in learner.network.parameters()]
        learner.update(1, 2, *batches[1], lr=0.1)
        assert [gradient() for gradient in gradients] == [None] * len(gradients)
    finally:
        gc.enable()


@pytest.mark.usefixtures("float64")
def test_delivered_weights_are_the_average_of_all_steps(digits: Data, batches: list[Batch]) -> None:
    learner = learner_of(digits, training={"batch_size": BATCH, "ema": {"decay": 0.9}})
    path = []
    for k, (images, labels) in enumerate(batches[:20], start=1):
        learner.update(1, k, images, labels, 0.1)
        path.append(parameters(learner)[2])
    # A_n = 0.9ⁿ⁻¹ W_1 + Σ 0.1 · 0.9ⁿ⁻ᵏ W_k over k = 2 … n.
    expected = 0.9**19 * path[0] + sum(0.1 * 0.9 ** (20 - k) * path[k - 1] for k in range(2, 21))
    torch.testing.assert_close(learner.weights()["fc1.weight"], expected, rtol=0, atol=1e-12)
    assert torch.equal(learner.network.get_parameter("fc1.weight"), path[-1])


def test_totals_are_those_of_the_training_passes(digits: Data, batches: list[Batch]) -> None:
    learner = learner_of(digits)
    images, labels = batches[0]
    with torch.no_grad():
        logits = learner.network(images)
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)
    gradient = gradient_of(standardized(images, torch.from_numpy(digits.train_images)), labels)
    weights = [weight.double() for weight in parameters(learner)]
    norm = torch.cat([part.flatten() for part in gradient(weights)]).norm().item()
    learner.update(1, 1, images, labels, 0.1)
    expected = {
        "train_loss": loss,
        "train_accuracy": accuracy,
        "train_top5_accuracy": (rank < 5).double().mean().item(),
        "grad_norm": norm,
    }
    assert learner.totals.means() == pytest.approx(expected, abs=1e-5)


def test_weight_statistics_by_hand(digits: Data) -> None:
    """Over 36 weights of the convolution and 640 of the dense layer, biases left out."""
    learner = learner_of(digits)
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.fill_(2)
        weight = learner.network.get_parameter("fc1.weight").flatten()
        weight[:16] = 0
        weight[16:48] = -1e-4
    expected = {"weight_norm": (4 * (676 - 48) + 32e-8) ** 0.5, "zero_share": 16 / 676, "near_zero_share": 48 / 676}
    assert learner.weight_statistics() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw", "muon"])
def test_frozen_layers_stay_as_they_are(optimizer: str, digits: Data, batches: list[Batch]) -> None:
    layers = [LAYERS[0], {"type": "batch_norm"}, *LAYERS[1:]]
    learner = learner_of(
        digits,
        model={"type": "layers", "layers": layers},
        optimizer={"type": optimizer},
        regularizers=[{"type": "l2", "weight": 0.1}, {"type": "max_norm", "max_value": 0.01, "layers": ["conv*"]}],
        training={"frozen": ["conv*", "batch_norm1"], "batch_size": BATCH, "ema": {"decay": 0.9}},
    )
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    for k in (1, 2, 3):
        learner.update(1, k, *batches[k], 0.1)
        learner.network.train()  # as after an evaluation
    after = learner.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc1.weight", "fc1.bias"}
    assert learner.network.get_parameter("conv1.weight").grad is None
    kept = {name for name in learner.tensors() if name.startswith(("optimizer.", "average."))}
    assert all(name.split(".")[1] == "fc1" for name in kept)


@pytest.mark.usefixtures("float64")
def test_behind_frozen_layers_training_is_that_of_the_rest_alone(digits: Data, batches: list[Batch]) -> None:
    learner = learner_of(digits, training={"frozen": ["conv1"], "batch_size": BATCH})
    expected = parameters(learner)
    for k, (images, labels) in enumerate(batches[:10], start=1):
        learner.update(1, k, images, labels, 0.1)
        gradient = gradient_of(standardized(images, torch.from_numpy(digits.train_images)), labels)(expected)
        expected = [*expected[:2], *(w - 0.1 * g for w, g in zip(expected[2:], gradient[2:], strict=True))]
    for parameter, value in zip(learner.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=1e-12)


def test_a_loss_that_overflows_alone_is_found(digits: Data, batches: list[Batch]) -> None:
    """Logits and gradients are finite, the sum of the losses is not."""
    learner = learner_of(digits)
    with torch.no_grad():
        learner.network.get_parameter("fc1.weight").zero_()
        learner.network.get_parameter("fc1.bias")[0] = 2e38
        learner.network.get_parameter("fc1.bias")[1] = -1e38
    labels = torch.ones_like(batches[0][1])
    learner.update(1, 1, batches[0][0], labels, 0.1)
    found = learner.diverged()
    assert found == (1, [])
    assert learner.first_bad_layer(1, 1, batches[0][0], labels, found[1]) == "fc1"


@pytest.mark.usefixtures("float64")
def test_a_partner_follows_the_schedule_in_its_own_units(digits: Data, batches: list[Batch]) -> None:
    partner = {"type": "sgd", "lr": 0.2}
    learner = learner_of(digits, optimizer={"type": "muon", "lr": 0.1, "partner": partner})
    before = parameters(learner)
    learner.update(1, 1, *batches[0], 0.025)  # a quarter of the optimizer's
    gradient = gradient_of(standardized(batches[0][0], torch.from_numpy(digits.train_images)), batches[0][1])(before)
    for bias in (1, 3):
        expected = before[bias] - 0.05 * gradient[bias]
        torch.testing.assert_close(parameters(learner)[bias], expected, rtol=0, atol=1e-12)


def test_initial_weights_follow_from_the_seed_and_leave_the_global_generator() -> None:
    spec, other = small_spec(), small_spec(training={"seed": 1})
    state = torch.random.get_rng_state()
    first = initialized_network(spec).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    second = initialized_network(spec).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["fc1.weight"], initialized_network(other).state_dict()["fc1.weight"])


def test_dropout_masks_follow_from_the_step(digits: Data, batches: list[Batch]) -> None:
    layers = [*LAYERS[:-1], {"type": "dropout", "keep_prob": 0.5}, LAYERS[-1]]
    images, labels = batches[0]
    weights = []
    for noise in range(2):
        learner = learner_of(digits, model={"type": "layers", "layers": layers})
        torch.rand(noise)
        for step in (1, 2):
            learner.update(1, step, images, labels, 0.1)
        weights.append(learner.network.get_parameter("fc1.weight"))
    assert torch.equal(weights[0], weights[1])
    other = learner_of(digits, model={"type": "layers", "layers": layers})
    for step in (1, 3):
        other.update(1, step, images, labels, 0.1)
    assert not torch.equal(weights[0], other.network.get_parameter("fc1.weight"))


@pytest.mark.parametrize("ema", [None, {"decay": 0.5}])
def test_values_that_are_not_finite_never_reach_the_weights(
    ema: dict[str, float] | None, digits: Data, batches: list[Batch]
) -> None:
    layers = [LAYERS[0], {"type": "batch_norm"}, *LAYERS[1:]]
    parts = {} if ema is None else {"training": {"batch_size": BATCH, "ema": ema}}
    model = {"type": "layers", "layers": layers}
    learner = learner_of(digits, model=model, optimizer={"type": "nesterov"}, **parts)
    for k in (1, 2):
        learner.update(1, k, *batches[k], 0.1)
    good = {name: tensor.clone() for name, tensor in learner.weights().items()}
    assert learner.diverged() is None
    spoiled = batches[3][0].float()
    spoiled[3, 0, 2, 2] = float("nan")
    learner.update(1, 3, spoiled, batches[3][1], 0.1)
    learner.update(1, 4, *batches[4], 0.1)
    found = learner.diverged()
    assert found is not None
    assert found[0] == 3
    assert learner.first_bad_layer(1, 3, spoiled, batches[3][1], found[1]) == "normalization"
    weights = learner.weights()
    assert all(torch.equal(weights[name], good[name]) for name in good)


def test_a_gradient_that_overflows_is_found_in_its_layer(digits: Data, batches: list[Batch]) -> None:
    learner = learner_of(digits)
    with torch.no_grad():
        learner.network.get_parameter("fc1.weight").fill_(1e30)
        learner.network.get_parameter("conv1.weight").fill_(1e10)
    learner.update(1, 1, *batches[0], 0.1)
    found = learner.diverged()
    assert found is not None
    assert learner.first_bad_layer(1, 1, *batches[0], found[1]) == "fc1"


def test_a_restored_learner_goes_on_with_the_same_bits(digits: Data, batches: list[Batch]) -> None:
    parts: dict[str, Any] = {"optimizer": {"type": "adam"}, "training": {"ema": {"decay": 0.9}, "batch_size": BATCH}}
    learner = learner_of(digits, **parts)
    for k in (1, 2, 3):
        learner.update(1, k, *batches[k], 0.01)
    saved = {name: tensor.detach().clone() for name, tensor in learner.tensors().items()}
    other = learner_of(digits, **parts)
    other.restore(saved)
    for k in (4, 5):
        for one in (learner, other):
            one.update(1, k, *batches[k], 0.01)
    expected, got = learner.tensors(), other.tensors()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
