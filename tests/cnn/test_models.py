from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from cnn.datasets import Digits
from cnn.models import Model, build_network
from cnn.spec import TrainingSpec
from cnn.whitening import WhiteningConv2d
from tests.cnn.test_spec import DESIGN

ARCHITECTURES = [
    member for member in get_args(get_args(Model.__value__)[0]) if member.model_fields["type"].default != "layers"
]


def spec_with(model: dict[str, Any], dataset: str = "fashion_mnist") -> TrainingSpec:
    return TrainingSpec.model_validate(
        {
            "dataset": {"type": dataset},
            "model": model,
            "optimizer": {"type": "sgd"},
            "normalization": {"type": "min_max"},
        }
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


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_resnet_is_as_large_as_its_paper_says(depth: int, millions: float) -> None:
    spec = spec_with({"type": "resnet", "depth": depth})
    # The paper's table is for 3 channels and shortcuts without weights; ours have 2 * 1,536 + batch norm more.
    extra = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64) - 2 * 9 * 16
    assert (spec.plan().num_parameters - extra) / 1e6 == pytest.approx(millions, abs=0.006)
    assert len([name for name in spec.weight_layers if "shortcut" not in name]) == depth


def test_whitening_decorrelates_the_patches_of_the_training_images(tmp_path: Path) -> None:
    images = torch.tensor(Digits().load(tmp_path).train_images[:500]) / 255
    layer = WhiteningConv2d(kernel_size=3, eps=1e-9)
    module = layer.build((1, 8, 8))
    module.load_state_dict(layer.fit(images))
    inner = module(images)[:, :9, 1:-1, 1:-1].double()  # without the padded border
    covariance = torch.cov(inner.transpose(0, 1).flatten(1), correction=0)
    torch.testing.assert_close(covariance, torch.eye(9, dtype=torch.float64), atol=1e-3, rtol=0)
    assert torch.equal(module.weight[9:], -module.weight[:9])


def test_whitening_must_come_first() -> None:
    layers = [
        {"type": "relu"},
        {"type": "whitening_conv2d"},
        {"type": "flatten"},
        {"type": "linear", "out_features": 10},
    ]
    with pytest.raises(ValueError, match="must be the first layer"):
        spec_with({"type": "layers", "layers": layers})
