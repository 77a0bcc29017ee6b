"""`model.onnx` of every layer, normalization and architecture, judged by onnxruntime and by the report itself."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cnn import base
from cnn.architectures import Architecture
from cnn.base import Shape
from cnn.data import Data
from cnn.datasets import DatasetInfo
from cnn.events import Artifact, Warning_
from cnn.nn.normalization import Raw
from cnn.normalization import Normalization
from cnn.onnx_export import BATCH_SIZES, ExportFailed, export_onnx
from cnn.spec import TrainingSpec
from cnn.training import train
from tests.cnn.plain import small_spec
from tests.cnn.test_layers import MEMBERS, VARIANTS, VECTOR, example
from tests.cnn.test_models import EXAMPLES, model_id

IMAGE: Shape = (4, 8, 8)
NORMALIZATIONS = get_args(get_args(Normalization.__value__)[0])
CHANNEL_SCALE = 255.0


def shape_for(layer: base.Layer) -> Shape:
    try:
        layer.cost(IMAGE)
    except base.ShapeError:
        return VECTOR
    return IMAGE


def pictures(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (8, *shape), dtype=np.uint8)


def trained_a_little(network: nn.Module, images: NDArray[np.uint8]) -> nn.Module:
    """With running statistics that are not those of the beginning."""
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(images))
    return network.eval()


def parity(network: nn.Module, images: NDArray[np.uint8]) -> tuple[bytes, Any]:
    model, report = export_onnx(network, network.state_dict(), images)
    return model, json.loads(report)


def check(network: nn.Module, images: NDArray[np.uint8]) -> None:
    model, report = parity(network, images)
    assert [row["batch_size"] for row in report["batches"]] == list(BATCH_SIZES)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network(torch.from_numpy(images[:5])).numpy()
    [logits] = session.run(None, {"images": images[:5]})
    assert np.abs(logits - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    assert [entry.type for entry in session.get_inputs()] == ["tensor(uint8)"]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(layer, shape_for(layer)) for layer in map(example, MEMBERS)]
    + [(layer, IMAGE if len(shape) == 3 else shape) for layer, shape in VARIANTS],
    ids=lambda value: value.type if isinstance(value, base.Layer) else str(len(value)),
)
def test_every_layer_exports(layer: base.Layer, shape: Shape) -> None:
    network = nn.Sequential(OrderedDict(raw=Raw(), layer=layer.build(shape), flat=nn.Flatten()))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3 / CHANNEL_SCALE)
    images = pictures(*shape)
    check(trained_a_little(network, images), images)


@pytest.mark.parametrize("member", NORMALIZATIONS, ids=lambda member: str(member.model_fields["type"].default))
def test_every_normalization_exports(member: Any) -> None:
    images = pictures(*IMAGE)
    module = member().build(IMAGE)
    module.load_state_dict(member().fit(images))
    check(nn.Sequential(module, nn.Flatten()).eval(), images)


@pytest.mark.parametrize("model", EXAMPLES, ids=model_id)
def test_every_architecture_exports(model: Architecture) -> None:
    info = DatasetInfo("pictures", (3, 32, 32), labels=tuple("0123456789"), num_train=100, num_test=10)
    if model.type == "layers":
        pytest.skip("its example does not take 32 x 32 pixels; its layers are tested one by one")
    network = nn.Sequential(Raw(), model.build(info))
    images = pictures(*info.shape)
    check(trained_a_little(network, images), images)


def test_equal_networks_give_equal_bytes() -> None:
    images = pictures(*IMAGE)
    layers = [nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 5)]
    network = nn.Sequential(Raw(), *layers).eval()
    assert export_onnx(network, network.state_dict(), images) == export_onnx(network, network.state_dict(), images)


def test_the_delivered_weights_are_exported_and_not_those_of_the_network() -> None:
    images = pictures(4)
    network = nn.Sequential(Raw(), nn.Linear(4, 2)).eval()
    weights = {"1.weight": torch.zeros(2, 4), "1.bias": torch.tensor([3.0, -1.0])}
    model, _ = export_onnx(network, weights, images)
    [logits] = onnxruntime.InferenceSession(model).run(None, {"images": images[:1]})
    assert logits.tolist() == [[3.0, -1.0]]


class Differs(nn.Module):
    """Computes something else while it is exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() + (1e-2 if torch.onnx.is_in_onnx_export() else 0.0)


def test_a_model_that_computes_something_else_is_not_delivered() -> None:
    with pytest.raises(ExportFailed, match="not those of torch"):
        export_onnx(nn.Sequential(Differs()), {}, np.zeros((8, 4), dtype=np.uint8))


def test_what_cannot_be_exported_is_a_warning_and_the_run_succeeds(digits: Data, tmp_path: Path) -> None:
    layers = [{"type": "adaptive_avg_pool2d", "output_size": 3}, {"type": "flatten"}]
    model = {"type": "layers", "layers": [*layers, {"type": "linear", "out_features": 10}]}
    spec = TrainingSpec.model_validate({**small_spec().model_dump(mode="python"), "model": model})
    events = list(train(spec, digits, artifacts=tmp_path))
    [warning] = [event for event in events if isinstance(event, Warning_)]
    assert "there is no model.onnx: torch cannot write this network" in warning.message
    names = [event.name for event in events if isinstance(event, Artifact)]
    assert "model.safetensors" in names
    assert "model.onnx" not in names
