from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from cnn.models import Model, build_network
from cnn.spec import TrainingSpec
from tests.cnn.test_spec import DESIGN

ARCHITECTURES = [member for member in get_args(get_args(Model.__value__)[0]) if member.model_fields["type"].default != "layers"]


def spec_with(model: dict[str, Any], dataset: str = "fashion_mnist") -> TrainingSpec:
    return TrainingSpec.model_validate(
        {"dataset": {"type": dataset}, "model": model, "optimizer": {"type": "sgd"}, "normalization": {"type": "min_max"}}
    )


def test_the_network_has_a_child_for_each_layer_under_its_name() -> None:
    network = build_network(TrainingSpec.model_validate(DESIGN))
    keys = set(network.state_dict())
    assert {"normalization.mean", "normalization.std", "conv1.weight", "conv1.bias", "batch_norm1.running_mean"} < keys
    assert [name for name, _ in network.named_children()][:3] == ["normalization", "conv1", "batch_norm1"]


def test_a_network_without_normalization_sees_the_bytes_as_they_are() -> None:
    spec = TrainingSpec.model_validate({**DESIGN, "normalization": None})
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(build_network(spec)[0](images), images.float())


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda member: member.model_fields["type"].default)
def test_an_architecture_builds_as_planned(architecture: Any) -> None:
    spec = spec_with({"type": architecture.model_fields["type"].default})
    network = build_network(spec).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == spec.plan().num_parameters
    assert network(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape == (2, 10)


def test_lenet_is_as_large_as_its_paper_says() -> None:
    # With 28 x 28 padded to 32 x 32; C1 156, C3 with full connections 2,416, C5 48,120, F6 10,164, output 850.
    assert spec_with({"type": "lenet"}).plan().num_parameters == 156 + 2416 + 48120 + 10164 + 850
