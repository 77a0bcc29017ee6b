"""Max-pooling before activations: another order of computation, the same network."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnn.models import build_network
from cnn.nn.ordering import MONOTONE, put_maxima_first
from tests.cnn.plain import small_spec

CONV = {"type": "conv2d", "out_channels": 6, "kernel_size": 3, "padding": "same"}
POOL = {"type": "max_pool2d", "kernel_size": 2}


def network_of(*middle: dict[str, Any], **fields: Any) -> nn.Sequential:
    layers = [CONV, *middle, {"type": "flatten"}, {"type": "linear", "out_features": 10}]
    return build_network(small_spec(model={"type": "layers", "layers": layers}, **fields))


def names(network: nn.Sequential) -> list[str]:
    return [name for name, _ in network.named_children()]


def values_and_gradients(network: nn.Module, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    output = network(images)
    output.square().sum().backward()
    return [output.detach(), *(leaf.grad for leaf in (images, *network.parameters()) if leaf.grad is not None)]


def test_pooling_goes_before_the_activations_that_never_fall() -> None:
    moved = names(network_of({"type": "relu"}, {"type": "tanh"}, POOL, POOL))
    assert moved == ["normalization", "conv2d1", "max_pool2d1", "max_pool2d2", "relu1", "tanh1", "flatten1", "linear1"]


@pytest.mark.parametrize("between", ["gelu", "silu", "hardswish", "batch_norm"])
def test_pooling_stays_behind_all_else(between: str) -> None:
    assert names(network_of({"type": "relu"}, {"type": between}, POOL))[2:5] == ["relu1", f"{between}1", "max_pool2d1"]


def test_pooling_goes_first_inside_blocks_too() -> None:
    block = {"type": "residual", "layers": [CONV, {"type": "relu"}, POOL], "shortcut": [CONV, {"type": "relu"}, POOL]}
    built = network_of(block).get_submodule("residual1")
    assert [name for name, _ in built.named_children()] == ["conv2d1", "max_pool2d1", "relu1", "shortcut"]
    assert [name for name, _ in built.get_submodule("shortcut").named_children()] == ["conv2d1", "max_pool2d1", "relu1"]


def test_where_features_are_augmented_every_layer_gives_what_the_spec_says() -> None:
    changed = {"type": "feature_space", "layer": "relu1"}
    assert names(network_of({"type": "relu"}, POOL, augmentation=[changed]))[2:4] == ["relu1", "max_pool2d1"]


@pytest.mark.parametrize("activation", MONOTONE, ids=lambda activation: activation.__name__)
@pytest.mark.parametrize("padding", [0, 1])
def test_values_and_gradients_are_the_same(activation: type[nn.Module], padding: int) -> None:
    """Windows with ties among positive and among negative values, and some that lie in the flat parts, included."""
    torch.manual_seed(0)
    written = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), activation(), nn.MaxPool2d(3, stride=2, padding=padding))
    images = torch.randint(-6, 7, (16, 2, 12, 12)).float().double()
    written.double()
    reordered = deepcopy(written)
    put_maxima_first(reordered)
    assert isinstance(reordered[1], nn.MaxPool2d)
    assert list(reordered.state_dict()) == list(written.state_dict())
    expected = values_and_gradients(written, images)
    for value, reference in zip(values_and_gradients(reordered, images), expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)


def test_ties_and_flat_parts_give_the_same_bits() -> None:
    """Whole numbers: windows of equal positive values, of different negative ones, and of zeros."""
    images = torch.randint(-2, 3, (64, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    written = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    reordered = deepcopy(written)
    put_maxima_first(reordered)
    pairs = zip(values_and_gradients(reordered, images), values_and_gradients(written, images), strict=True)
    assert all(torch.equal(value, reference) for value, reference in pairs)
