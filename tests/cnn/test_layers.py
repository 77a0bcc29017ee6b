"""Every member of the `Layer` union, against torch."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter

from cnn import base
from cnn.activations import ReLU
from cnn.base import Shape, ShapeError, with_names
from cnn.layers import Conv2d, Flatten, Layer, Linear, Residual, WeightNorm, build_layers, graph_of
from cnn.plan import LayerDoesNotFit, plan_graph
from cnn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tests.cnn.measuring import kept_bytes, num_parameters, torch_macs

MEMBERS: tuple[type[base.Layer], ...] = get_args(get_args(Layer.__value__)[0])
IMAGE: Shape = (4, 9, 7)
VECTOR: Shape = (24,)
REQUIRED: dict[str, dict[str, Any]] = {
    "conv2d": {"out_channels": 6, "kernel_size": 3},
    "max_pool2d": {"kernel_size": 2},
    "avg_pool2d": {"kernel_size": 2},
    "adaptive_avg_pool2d": {"output_size": 2},
    "weight_norm": {"layer": {"type": "conv2d", "out_channels": 6, "kernel_size": 3}},
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
    (AdaptiveAvgPool2d(output_size=1), IMAGE),
    (Linear(out_features=3, bias=False), VECTOR),
    (WeightNorm(layer=Linear(out_features=3)), VECTOR),
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


every_layer = pytest.mark.parametrize(
    ("layer", "shape"),
    [(layer, input_shape(layer)) for layer in map(example, MEMBERS)] + VARIANTS,
    ids=lambda value: re.sub(r"name=None ?", "", repr(value)) if isinstance(value, base.Layer) else str(len(value)),
)


@every_layer
def test_cost_is_what_torch_finds(layer: base.Layer, shape: Shape) -> None:
    module = layer.build(shape).eval()
    inputs = torch.randn(2, *shape)
    cost = layer.cost(shape)
    with torch.no_grad():
        assert tuple(module(inputs).shape[1:]) == cost.shape
    assert num_parameters(module) == cost.num_parameters
    assert torch_macs(module, inputs) == len(inputs) * cost.macs


@every_layer
def test_what_is_kept_for_the_backward_pass_is_what_torch_saves(layer: base.Layer, shape: Shape) -> None:
    """Behind a layer with weights, before one, and alone, where no gradient goes to the input."""
    weighted: base.Layer = Linear(out_features=shape[0])
    if len(shape) == 3:
        weighted = Conv2d(out_channels=shape[0], kernel_size=1)
    behind = [Flatten(), Linear(out_features=2)] if len(layer.cost(shape).shape) == 3 else [Linear(out_features=2)]
    for layers in ([weighted, layer, *behind], [layer]):
        if layer.is_fitted and layers[0] is weighted:
            layers = layers[1:]
        named = with_names(layers)
        plan = plan_graph(graph_of(named), shape)
        assert plan.activation_bytes == kept_bytes(build_layers(named, shape), shape)


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
        (AdaptiveAvgPool2d(output_size=8), IMAGE, "at most the side of the image, got 8"),
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
    plan = plan_graph(graph_of(layers), (1, 5, 5))
    # By hand: 3 x 3 positions of 2 filters of 9 weights; then 18 features to 10 outputs.
    assert [layer.output_shape for layer in plan.layers] == [(2, 3, 3), (2, 3, 3), (18,), (10,)]
    assert plan.num_parameters == (2 * 9 + 2) + (18 * 10 + 10)
    assert plan.macs == 9 * 2 * 9 + 18 * 10
    with pytest.raises(LayerDoesNotFit, match=r"layer l \(linear\) does not fit \(2, 3, 3\)") as caught:
        plan_graph(graph_of([layers[0], layers[3]]), (1, 5, 5))
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
    plan = plan_graph(graph_of([BLOCK]), IMAGE)
    assert [layer.name for layer in plan.layers] == [
        "block.conv2d1",
        "block.relu1",
        "block.out",
        "block.shortcut.in",
        "block",
    ]
    names = {f"block.{name}" for name, _ in BLOCK.build(IMAGE).named_parameters()}
    assert names == {f"{layer}.{part}" for layer in plan.weight_layers for part in ("weight", "bias")}
    assert plan.num_parameters == num_parameters(BLOCK.build(IMAGE))


def test_a_block_whose_ways_do_not_meet_is_refused_with_its_place() -> None:
    wider = Residual(name="b", layers=(ReLU(name="r"), Conv2d(name="c", out_channels=8, kernel_size=1)))
    with pytest.raises(LayerDoesNotFit, match=r"layers give \(8, 9, 7\), but its shortcut gives \(4, 9, 7\)") as caught:
        plan_graph(graph_of([ReLU(name="first"), wider]), IMAGE)
    assert caught.value.pointer == "/1"
    inner = Residual(name="b", layers=(Linear(name="l", out_features=8),))
    with pytest.raises(LayerDoesNotFit, match=r"layer b\.l \(linear\)") as caught:
        plan_graph(graph_of([inner]), IMAGE)
    assert caught.value.pointer == "/0/layers/0"


def test_blocks_nest_only_so_deep() -> None:
    block: base.Layer = ReLU()
    for _ in range(4):
        block = Residual(layers=(block,))
    with pytest.raises(ValueError, match="nested 4 deep"):
        Residual(layers=(block,))


@pytest.mark.parametrize(
    ("inner", "shape"),
    [(Conv2d(out_channels=3, kernel_size=2, bias=False), IMAGE), (Linear(out_features=3), VECTOR)],
    ids=["conv2d", "linear"],
)
def test_weight_norm_learns_length_and_direction_apart(inner: Conv2d | Linear, shape: Shape) -> None:
    module = WeightNorm(layer=inner).build(shape).double()
    state = module.state_dict()
    g, v = state["parametrizations.weight.original0"], state["parametrizations.weight.original1"]
    g.copy_(torch.tensor([0.5, 2.0, 3.0]).reshape(g.shape))
    expected = torch.stack([length * row / row.square().sum().sqrt() for length, row in zip(g, v, strict=True)])
    torch.testing.assert_close(module.weight, expected, rtol=1e-12, atol=1e-12)
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    plain = inner.build(shape).double()
    plain.load_state_dict({"weight": expected} | ({"bias": state["bias"]} if inner.bias else {}))
    torch.testing.assert_close(module(inputs), plain(inputs), rtol=1e-12, atol=1e-12)


def test_weight_norm_begins_where_its_layer_begins() -> None:
    torch.manual_seed(0)
    plain = Linear(out_features=3).build(VECTOR)
    torch.manual_seed(0)
    torch.testing.assert_close(WeightNorm(layer=Linear(out_features=3)).build(VECTOR).weight, plain.weight)


def test_the_layer_in_a_weight_norm_has_no_name() -> None:
    with pytest.raises(ValueError, match="give 'fc' to the weight_norm"):
        WeightNorm(layer=Linear(name="fc", out_features=3))
