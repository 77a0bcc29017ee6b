from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cnn.data import Data
from cnn.events import Artifact, Checkpoint, Event, Metrics, Result, Stopped
from cnn.feature_space import FeatureSpace
from cnn.learner import Learner
from cnn.training import train
from cnn.transforms.features import (
    add_noise,
    extrapolate,
    interpolate,
    nearest_class_by_class,
    nearest_in_class,
)
from tests.cnn.plain import LAYERS, small_spec
from tests.cnn.test_training import digest, stop_after

# Two classes on a line: 0, 1, 3 and 10, 11.
FEATURES = torch.tensor([[0.0], [10.0], [1.0], [11.0], [3.0]])
LABELS = torch.tensor([0, 1, 0, 1, 0])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec_with(**member: Any) -> Any:
    hidden = {"type": "linear", "name": "hidden", "out_features": 16}
    layers = [*LAYERS[:-1], hidden, {"type": "relu"}, {"type": "dropout", "keep_prob": 0.8}, LAYERS[-1]]
    return small_spec(
        model={"type": "layers", "layers": layers},
        augmentation=[
            {"type": "random_crop", "padding": 1},
            {"type": "feature_space", "layer": "hidden", **member},
        ],
        optimizer={"type": "adam", "lr": 0.01},
        training={"batch_size": 100, "epochs": 5},
    )


def test_the_formulas_by_hand() -> None:
    c_j, c_k = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -2.0]])
    assert interpolate(c_j, c_k, 0.5).tolist() == [[2.0, 0.0]]
    assert extrapolate(c_j, c_k, 0.5).tolist() == [[0.0, 4.0]]
    std = torch.tensor([0.0, 2.0])
    noisy = add_noise(torch.tensor([[1.0, 2.0]]).expand(20000, 2), std, 0.25, seeded())
    assert (noisy[:, 0] == 1).all()
    assert noisy[:, 1].mean().item() == pytest.approx(2.0, abs=0.02)  # the standard error is 0.0035
    assert noisy[:, 1].std().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("find", [nearest_in_class, nearest_class_by_class])
def test_neighbours_are_the_nearest_others_of_the_class(find: Any) -> None:
    neighbors = find(FEATURES, LABELS, 2)
    assert neighbors.counts.tolist() == [2, 1, 2, 1, 2]
    lists = [row[:count] for row, count in zip(neighbors.indices.tolist(), neighbors.counts.tolist(), strict=True)]
    assert lists == [[2, 4], [3], [0, 4], [1], [2, 0]]


def test_a_class_of_one_has_no_neighbours() -> None:
    for find in (nearest_in_class, nearest_class_by_class):
        assert find(FEATURES[:2], LABELS[:2], 3).counts.tolist() == [0, 0]
    alone = FeatureSpace(layer="fc1", p=1.0).within_batch(FEATURES[:2], LABELS[:2], seeded())
    assert torch.equal(alone, FEATURES[:2])


def test_neighbours_are_drawn_evenly() -> None:
    neighbors = nearest_in_class(FEATURES, LABELS, 10)
    generator = seeded()
    draws = torch.stack([neighbors.draw(generator) for _ in range(2000)])
    assert set(draws[:, 1].tolist()) == {3}
    assert (draws[:, 0] == 2).double().mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("mode", "sign"), [("interpolate", 1.0), ("extrapolate", -1.0)])
def test_new_features_lie_where_the_formula_says(mode: Any, sign: float) -> None:
    member = FeatureSpace(layer="fc1", mode=mode, weight=0.25, num_neighbors=1, p=1.0)
    # The nearest of 0 is 1, of 1 is 0, of 3 is 1, of 10 is 11, of 11 is 10.
    nearest = torch.tensor([[1.0], [11.0], [0.0], [10.0], [1.0]])
    expected = FEATURES + sign * 0.25 * (nearest - FEATURES)
    assert torch.equal(member.within_batch(FEATURES, LABELS, seeded()), expected)


def test_p_is_the_share_that_is_replaced() -> None:
    features = torch.randn(4000, 3, 2, 2, generator=seeded(1))
    changed = FeatureSpace(layer="x", mode="noise", p=0.3).within_batch(features, torch.zeros(4000).long(), seeded())
    share = (changed != features).flatten(1).any(dim=1).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)  # four standard deviations
    untouched = FeatureSpace(layer="x", p=0.0).within_batch(FEATURES, LABELS, seeded())
    assert torch.equal(untouched, FEATURES)


def test_the_gradient_flows_through_both_samples() -> None:
    features = torch.tensor([[0.0], [1.0]], requires_grad=True)
    member = FeatureSpace(layer="fc1", mode="extrapolate", weight=0.5, p=1.0)
    new = member.within_batch(features, torch.zeros(2).long(), seeded())
    torch.autograd.backward(new[0, 0])
    assert features.grad is not None
    assert features.grad.tolist() == [[1.5], [-0.5]]  # 1.5 c_j - 0.5 c_k


def test_neighbours_from_the_split_are_its_features_in_evaluation(digits: Data) -> None:
    spec = spec_with(mode="interpolate", weight=1.0, num_neighbors=1, neighbors_from="split", p=1.0)
    images, labels = digits.train_images[:300], digits.train_labels[:300]
    learner = Learner(spec, images, labels, torch.device("cpu"))
    network = learner.network
    names = [name for name, _ in network.named_children()]
    seen: list[Tensor] = []
    network.get_submodule(names[names.index("hidden") + 1]).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        inputs = torch.from_numpy(images)
        for name in names[: names.index("hidden") + 1]:
            inputs = network.get_submodule(name).eval()(inputs)
    network.train()
    samples = torch.tensor([5, 17, 40, -1])
    batch, targets = torch.from_numpy(images)[[5, 17, 40, 41]], torch.from_numpy(labels)[[5, 17, 40, 41]]
    learner.update(1, 1, batch, targets, 0.0, samples)
    distances = torch.cdist(inputs.double(), inputs.double())
    for row, sample in enumerate([5, 17, 40]):
        others = [n for n in range(300) if labels[n] == labels[sample] and n != sample]
        nearest = min(others, key=lambda n, sample=sample: float(distances[sample, n]))  # type: ignore[misc]
        torch.testing.assert_close(seen[-1][row], inputs[nearest], rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[-1][3], inputs[41], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        ({"layer": "fc9"}, "/augmentation/1/layer", "there are: conv1, relu1, max_pool2d1, flatten1, hidden"),
        ({"layer": "fc1"}, "/augmentation/1/layer", "before the last, got 'fc1'"),
    ],
)
def test_a_layer_that_is_none_is_refused(change: dict[str, Any], pointer: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec_with(**change)
    (error,) = caught.value.errors()
    assert error["ctx"]["pointer"] == pointer
    assert message in error["msg"]


def test_mixed_labels_are_refused() -> None:
    with pytest.raises(ValidationError, match="needs the class of each sample, which mixup mixes"):
        small_spec(augmentation=[{"type": "feature_space", "layer": "conv1"}, {"type": "mixup"}])


@pytest.mark.parametrize(
    "member",
    [{"mode": "extrapolate"}, {"mode": "interpolate", "neighbors_from": "split"}, {"mode": "noise"}],
    ids=lambda member: json.dumps(member),
)
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bytes(
    member: dict[str, Any], digits: Data, tmp_path: Path
) -> None:
    spec = spec_with(**member)

    def run(name: str, **arguments: Any) -> list[Event]:
        folder = tmp_path / name
        return list(train(spec, digits, checkpoints=folder / "c", artifacts=folder, **arguments))

    expected = run("undisturbed")
    first = run("first", stop=stop_after(5))
    assert isinstance(first[-1], Stopped)
    path = next(event.path for event in reversed(first) if isinstance(event, Checkpoint))
    second = run("second", stop=stop_after(11), resume_from=path)
    path = next(event.path for event in reversed(second) if isinstance(event, Checkpoint))
    last = run("last", resume_from=path)
    assert last[-1] == expected[-1]
    assert isinstance(last[-1], Result)
    values = [[row.values for row in events if isinstance(row, Metrics)] for events in (expected, last)]
    assert values[0] == values[1]
    artifact = next(event for event in expected if isinstance(event, Artifact) and event.name == "model.safetensors")
    assert digest(artifact.path) == digest(tmp_path / "last" / "model.safetensors")
    assert last[-1].test_accuracy > 0.5
