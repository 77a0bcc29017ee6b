"""Which networks the library takes part in, and that they stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from cnn.learner import Learner
from cnn.models import build_network
from cnn.native.network import FirstBlock, Halving, Network
from cnn.nn.whitening import WhiteningConv2d
from cnn.onnx_export import export_onnx
from cnn.spec import TrainingSpec
from tests.cnn.native.using import using
from tests.cnn.plain import small_spec

POOL = nn.MaxPool2d(2)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Conv2d(1, 8, 3, padding="same"), POOL, nn.ReLU(), nn.Flatten()], (1, True, 3)),
        ([nn.Conv2d(2, 6, 5), POOL, nn.Tanh()], (0, False, 2)),
        ([nn.Conv2d(1, 8, 5, padding="valid", bias=False), POOL], (0, False, 2)),
        ([nn.Conv2d(1, 8, 3, padding=2), POOL, nn.ReLU()], (2, True, 3)),
        ([WhiteningConv2d(1, 3), POOL, nn.ReLU()], (1, True, 3)),
        ([weight_norm(nn.Conv2d(1, 8, 3)), POOL, nn.ReLU()], (0, True, 3)),
    ],
)
def test_a_block_is_a_convolution_halving_and_perhaps_relu(
    layers: list[nn.Module], expected: tuple[int, bool, int]
) -> None:
    block = FirstBlock.of(layers)
    assert block
    assert (block.padding, block.halving.relu, block.length) == expected


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 8, 3), nn.ReLU(), POOL],
        [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), POOL],
        [nn.Conv2d(1, 8, 7), POOL],
        [nn.Conv2d(3, 8, 5), POOL],
        [nn.Conv2d(4, 8, 3), POOL],
        [nn.Conv2d(1, 8, 2), POOL],
        [WhiteningConv2d(1, 2), POOL],
        [nn.Conv2d(1, 8, 3, stride=2), POOL],
        [nn.Conv2d(1, 8, 3, dilation=2, padding="same"), POOL],
        [nn.Conv2d(2, 8, 3, groups=2), POOL],
        [nn.Conv2d(1, 8, 3), nn.MaxPool2d(3)],
        [nn.Conv2d(1, 8, 3), nn.MaxPool2d(2, stride=1)],
        [nn.Conv2d(1, 8, 3), nn.MaxPool2d(2, padding=1)],
        [nn.Conv2d(1, 8, 3), nn.MaxPool2d(2, ceil_mode=True)],
        [nn.Conv2d(1, 8, 3)],
        [POOL, nn.ReLU()],
        [],
    ],
)
def test_of_all_else_the_library_keeps_its_hands(layers: list[nn.Module]) -> None:
    assert FirstBlock.of(layers) is None


HALVE = {"type": "max_pool2d", "kernel_size": 2}


def spec_of(*layers: dict[str, Any], **parts: Any) -> TrainingSpec:
    rest = [HALVE, {"type": "flatten"}, {"type": "linear", "out_features": 10}]
    return small_spec(model={"type": "layers", "layers": [*layers, *rest]}, **parts)


CONV = {"type": "conv2d", "name": "conv1", "out_channels": 12, "kernel_size": 3, "padding": "same"}
RELU = {"type": "relu"}
SPECS = {
    "relu": spec_of(CONV, RELU),
    "tanh": spec_of(CONV, {"type": "tanh"}),
    "no bias": spec_of({**CONV, "bias": False}, RELU),
    "weight norm": spec_of({"type": "weight_norm", "name": "conv1", "layer": {**CONV, "name": None}}, RELU),
    "whitening": spec_of({"type": "whitening_conv2d"}, RELU),
    "two blocks": spec_of(CONV, RELU, HALVE, {**CONV, "name": "conv2"}, RELU),
    "odd sides": spec_of({**CONV, "kernel_size": 2, "padding": "valid"}, {"type": "tanh"}),
}


@pytest.mark.parametrize(("kernel_size", "name"), [(3, "_TrainedBackward"), (7, "_HalvedBackward")])
def test_the_library_computes_what_it_can(folder: Path, kernel_size: int, name: str) -> None:
    network = Network(nn.Identity(), nn.Conv2d(1, 8, kernel_size), POOL, nn.ReLU())
    network.to(memory_format=torch.channels_last)
    images = torch.rand(2, 1, 12, 12)
    assert type(network(images).grad_fn).__name__ == "ReluBackward0"
    with using(folder):
        assert type(network(images).grad_fn).__name__ == name


def results(network: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    logits = network(images)
    logits.square().sum().backward()
    gradients = {name: leaf.grad for name, leaf in network.named_parameters() if leaf.grad is not None}
    return {"logits": logits.detach(), **gradients}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_logits_and_gradients_are_those_of_the_layers(folder: Path, name: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = build_network(SPECS[name]).to(memory_format=layout)
    for buffer in network.buffers():
        buffer.uniform_(0.5, 1)
    images = torch.randint(0, 17, (33, 1, 8, 8), dtype=torch.uint8)
    expected = results(network, images)
    network.zero_grad()
    with using(folder):
        found = results(network, images)
    assert found.keys() == expected.keys()
    assert any(Halving.of(list(network.children())[place:]) for place in range(len(network)))
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=float(1e-5 * expected[key].abs().max()))


@pytest.mark.usefixtures("native")
def test_a_frozen_block_has_no_gradient_and_other_weights_may_take_its_place() -> None:
    network = build_network(SPECS["relu"])
    images = torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)
    network.get_submodule("conv1").requires_grad_(False)
    assert results(network, images).keys() == {"logits", "linear1.weight", "linear1.bias"}
    other = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()} | {
        "linear1.weight": torch.ones(10, 192),
        "conv1.bias": torch.ones(12),
        "normalization.std": torch.ones(1),
    }
    with torch.inference_mode():
        assert torch.equal(functional_call(network, other, (images,)), torch.full((5, 10), 192.0))


@pytest.mark.usefixtures("native")
def test_images_that_need_a_gradient_get_it() -> None:
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    build_network(SPECS["relu"])(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_exported_network_has_ordinary_layers(folder: Path) -> None:
    network = build_network(SPECS["relu"])
    images = torch.randint(0, 17, (8, 1, 8, 8), dtype=torch.uint8).numpy()
    weights = network.state_dict()
    plain, _ = export_onnx(network, weights, images)
    with using(folder):
        assert export_onnx(network, weights, images)[0] == plain


@pytest.mark.usefixtures("native")
def test_a_step_that_is_not_finite_names_the_layer_where_it_began() -> None:
    images = torch.randint(0, 17, (64, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(64) % 10
    learner = Learner(SPECS["relu"], images.numpy(), labels.numpy(), torch.device("cpu"))
    with torch.no_grad():
        learner.network.get_parameter("conv1.weight")[3] = float("nan")
    learner.update(1, 1, images, labels, 0.1)
    found = learner.diverged()
    assert found
    assert found[0] == 1
    assert learner.first_bad_layer(1, 1, images, labels, found[1]) == "conv1"
