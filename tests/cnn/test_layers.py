"""Every member of the `Layer` union, against torch."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from cnn import base
from cnn.activations import ReLU
from cnn.base import Shape, ShapeError
from cnn.layers import AvgPool2d, Conv2d, Flatten, Layer, Linear, MaxPool2d, Residual
from cnn.plan import LayerDoesNotFit, plan_layers, weight_names

MEMBERS: tuple[type[base.Layer], ...] = get_args(get_args(Layer.__value__)[0])
IMAGE: Shape = (4, 9, 7)
VECTOR: Shape = (24,)
REQUIRED: dict[str, dict[str, Any]] = {
    "conv2d": {"out_channels": 6, "kernel_size": 3},
    "max_pool2d": {"kernel_size": 2},
    "avg_pool2d": {"kernel_size": 2},
    "linear": {"out_features": 5},
    "group_norm": {"num_groups": 2},
    "residual": {"layers": [{"type": "relu"}]},
}
VARIANTS: list[tuple[base.Layer, Shape]] = [
    (Conv2d(out_channels=8, kernel_size=5, padding="same"), IMAGE),
    (Conv2d(out_channels=8, kernel_size=4, padding="same", dilation=2, bias=False), IMAGE),
    (Conv2d(out_channels=8, kernel_size=3, stride=2, padding=1), IMAGE),
    (Conv2d(out_channels=8, kernel_size=2, dilation=3), IMAGE),
    (Conv2d(out_channels=8, kernel_size=3, groups=4), IMAGE),
    (MaxPool2d(kernel_size=3, stride=2, padding=1), IMAGE),
    (AvgPool2d(kernel_size=3, stride=1), IMAGE),
    (Linear(out_features=3, bias=False), VECTOR),
]


def type_of(layer: type[base.Layer]) -> str:
    return str(layer.model_fields["type"].default)


def example(member: type[base.Layer]) -> base.Layer:
    return member.model_validate(REQUIRED.get(type_of(member), {}))


def input_shape(layer: base.Layer) -> Shape:
    try:
        layer.cost(IMAGE)
    except ShapeError:
        return VECTOR
    return IMAGE


def torch_macs(module: nn.Module, inputs: torch.Tensor) -> int:
    """Multiply-accumulates as torch counts them (it counts two operations for each)."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  importing it costs a second

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(inputs)
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(layer, input_shape(layer)) for layer in map(example, MEMBERS)] + VARIANTS,
    ids=lambda value: re.sub(r"name=None ?", "", repr(value)) if isinstance(value, base.Layer) else str(len(value)),
)
def test_cost_is_what_torch_finds(layer: base.Layer, shape: Shape) -> None:
    module = layer.build(shape).eval()
    inputs = torch.randn(2, *shape)
    cost = layer.cost(shape)
    with torch.no_grad():
        assert tuple(module(inputs).shape[1:]) == cost.shape
    assert sum(parameter.numel() for parameter in module.parameters()) == cost.num_parameters
    assert torch_macs(module, inputs) == len(inputs) * cost.macs


@pytest.mark.parametrize("member", MEMBERS, ids=type_of)
def test_every_layer_round_trips_and_documents_its_fields(member: type[base.Layer]) -> None:
    layer = example(member)
    assert TypeAdapter(Layer).validate_json(layer.model_dump_json()) == layer
    assert member.__doc__
    assert all(field.description for name, field in member.model_fields.items() if name != "type")


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Conv2d(out_channels=8, kernel_size=9), (1, 8, 8), "covers 9 pixels, but only 8"),
        (Conv2d(out_channels=8, kernel_size=3, dilation=4), (1, 8, 8), "covers 9 pixels"),
        (Conv2d(out_channels=8, kernel_size=3, padding="same", stride=2), IMAGE, "needs stride 1, got stride 2"),
        (Conv2d(out_channels=8, kernel_size=4, padding="same"), IMAGE, "needs an odd kernel, got 4"),
        (Conv2d(out_channels=8, kernel_size=3, groups=3), IMAGE, "groups 3 must divide the 4 channels in"),
        (Conv2d(out_channels=8, kernel_size=3), VECTOR, "expected an image .* got a vector of 24 features"),
        (MaxPool2d(kernel_size=2, padding=2), IMAGE, "at most half the window of 2, got 2"),
        (Linear(out_features=2), IMAGE, "put a flatten layer before it"),
        (Flatten(), VECTOR, "expected an image"),
    ],
)
def test_a_shape_that_does_not_fit_is_said(layer: base.Layer, shape: Shape, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer.cost(shape)


def test_plan_adds_up_and_names_the_layer_that_does_not_fit() -> None:
    layers = [
        Conv2d(name="c", out_channels=2, kernel_size=3),
        ReLU(name="r"),
        Flatten(name="f"),
        Linear(name="l", out_features=10),
    ]
    plan = plan_layers(layers, (1, 5, 5))
    # By hand: 3 x 3 positions of 2 filters of 9 weights; then 18 features to 10 outputs.
    assert [layer.output_shape for layer in plan.layers] == [(2, 3, 3), (2, 3, 3), (18,), (10,)]
    assert plan.num_parameters == (2 * 9 + 2) + (18 * 10 + 10)
    assert plan.macs == 9 * 2 * 9 + 18 * 10
    with pytest.raises(LayerDoesNotFit, match=r"layer l \(linear\) does not fit \(2, 3, 3\)") as caught:
        plan_layers([layers[0], layers[3]], (1, 5, 5))
    assert caught.value.pointer == "/1"


BLOCK = Residual(
    name="block",
    layers=(
        Conv2d(out_channels=6, kernel_size=3, padding=1, stride=2),
        ReLU(),
        Conv2d(name="out", out_channels=6, kernel_size=1),
    ),
    shortcut=(Conv2d(name="in", out_channels=6, kernel_size=1, stride=2),),
)


def test_a_residual_block_adds_its_shortcut() -> None:
    module = BLOCK.build(IMAGE)
    inputs = torch.randn(2, *IMAGE)
    first, second, shortcut = module.conv2d1, module.out, module.shortcut.get_submodule("in")
    torch.testing.assert_close(module(inputs), second(first(inputs).relu()) + shortcut(inputs))
    identity = Residual(layers=(ReLU(),)).build(IMAGE)
    torch.testing.assert_close(identity(inputs), inputs.relu() + inputs)


def test_the_plan_of_a_block_lists_its_layers_under_the_names_of_their_tensors() -> None:
    plan = plan_layers([BLOCK], IMAGE)
    assert [layer.name for layer in plan.layers] == [
        "block.conv2d1",
        "block.relu1",
        "block.out",
        "block.shortcut.in",
        "block",
    ]
    names = {f"block.{name}" for name, _ in BLOCK.build(IMAGE).named_parameters()}
    assert names == {f"{layer}.{part}" for layer in weight_names([BLOCK]) for part in ("weight", "bias")}
    assert plan.num_parameters == sum(parameter.numel() for parameter in BLOCK.build(IMAGE).parameters())


def test_a_block_whose_ways_do_not_meet_is_refused_with_its_place() -> None:
    wider = Residual(name="b", layers=(ReLU(name="r"), Conv2d(name="c", out_channels=8, kernel_size=1)))
    with pytest.raises(LayerDoesNotFit, match=r"layers give \(8, 9, 7\), but its shortcut gives \(4, 9, 7\)") as caught:
        plan_layers([ReLU(name="first"), wider], IMAGE)
    assert caught.value.pointer == "/1"
    inner = Residual(name="b", layers=(Linear(name="l", out_features=8),))
    with pytest.raises(LayerDoesNotFit, match=r"layer b\.l \(linear\)") as caught:
        plan_layers([inner], IMAGE)
    assert caught.value.pointer == "/0/layers/0"


def test_blocks_nest_only_so_deep() -> None:
    block: base.Layer = ReLU()
    for _ in range(4):
        block = Residual(layers=(block,))
    with pytest.raises(ValueError, match="nested 4 deep"):
        Residual(layers=(block,))
