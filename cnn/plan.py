"""What a network costs, from its spec alone: shapes, parameters, multiply-accumulates and memory, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cnn.base import FLOAT_BYTES, Join, Layer, LayerCost, Shape, ShapeError


@dataclass(frozen=True, slots=True)
class Node:
    """A layer in the graph of a network.

    Tensor 0 is the input of the network, tensor n what the n-th node gives, counted from 1.
    """

    name: str
    """Prefix of its tensors: the path of its module."""
    layer: Layer
    inputs: tuple[int, ...]
    """The tensors that it takes: one, or several for a Join."""
    pointer: str = ""
    """JSON Pointer to the layer in the spec of the model; empty where the spec does not write it out."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer for one sample: shapes, trainable parameters, multiply-accumulates, memory.

    `activation_bytes` is what the layer keeps until the backward pass, in float32 and as torch does it on a CPU; what
    two layers keep is counted at the first of them. A module that is applied twice has two rows of one name.
    """

    name: str
    type: str
    pointer: str
    input_shape: Shape
    output_shape: Shape
    has_weight: bool
    num_parameters: int
    macs: int
    activation_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Of the trainable parameters, in float32."""
        return FLOAT_BYTES * self.num_parameters


@dataclass(frozen=True, slots=True)
class Plan:
    """The layers of a network in order, and their totals."""

    layers: tuple[LayerPlan, ...]

    @property
    def num_parameters(self) -> int:
        return sum(layer.num_parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample, those of convolutions and dense layers alone."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """What one sample keeps in memory until the backward pass, the loss not counted."""
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """Of the trainable parameters, in float32. Gradients take as much again, and so does each optimizer state."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def weight_layers(self) -> list[str]:
        """Names of the layers with a weight matrix or filters, on which penalties and constraints act."""
        return [layer.name for layer in self.layers if layer.has_weight]

    @property
    def output_shape(self) -> Shape:
        return self.layers[-1].output_shape


class LayerDoesNotFit(ValueError):
    """A layer cannot take what the layers before it give; the message names it.

    `code` is the identifier of a spec error, `pointer` leads to the layer in the spec of the model.
    """

    def __init__(self, code: str, pointer: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.pointer = pointer


@dataclass(slots=True)
class _Memory:
    num_bytes: int
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What a node gives: whether a gradient flows back through it, and the memory that its views share."""

    shape: Shape
    has_gradient: bool
    memory: _Memory


def plan_graph(nodes: Sequence[Node], shape: Shape) -> Plan:
    """The plan of a network whose input has `shape`; `nodes` come in the order of the forward pass.

    Raises LayerDoesNotFit.
    """
    tensors = [_Tensor(shape, False, _memory(shape))]
    rows = []
    for node in nodes:
        inputs = [tensors[index] for index in node.inputs]
        if node.layer.is_fitted and node.inputs != (0,):
            raise LayerDoesNotFit(
                "whitening_not_first",
                node.pointer,
                f"layer {node.name}: no gradient flows through a {node.layer.type}, so it must be the first layer",
            )
        cost = _cost(node, [tensor.shape for tensor in inputs])
        output, activation_bytes = _flow(cost, inputs)
        tensors.append(output)
        row = LayerPlan(
            name=node.name,
            type=node.layer.type,
            pointer=node.pointer,
            input_shape=inputs[0].shape,
            output_shape=cost.shape,
            has_weight=node.layer.has_weight,
            num_parameters=cost.num_parameters,
            macs=cost.macs,
            activation_bytes=activation_bytes,
        )
        rows.append(row)
    return Plan(tuple(rows))


def _cost(node: Node, shapes: Sequence[Shape]) -> LayerCost:
    try:
        return node.layer.join(shapes) if isinstance(node.layer, Join) else node.layer.cost(shapes[0])
    except ShapeError as error:
        message = f"layer {node.name} ({node.layer.type}) does not fit {shapes[0]}: {error}"
        raise LayerDoesNotFit("shape_mismatch", node.pointer, message) from error


def _flow(cost: LayerCost, inputs: Sequence[_Tensor]) -> tuple[_Tensor, int]:
    """The tensor that comes out, and the bytes that are kept for the backward pass and were not kept before."""
    has_gradient = cost.num_parameters > 0 or any(tensor.has_gradient for tensor in inputs)
    output = _Tensor(cost.shape, has_gradient, inputs[0].memory if cost.is_view else _memory(cost.shape))
    if not has_gradient:
        return output, 0
    activation_bytes = cost.kept_bytes
    for tensor in (*(inputs if cost.keeps_input else ()), *([output] if cost.keeps_output else ())):
        if not tensor.memory.is_kept:
            activation_bytes += tensor.memory.num_bytes
        tensor.memory.is_kept = True
    return output, activation_bytes


def _memory(shape: Shape) -> _Memory:
    return _Memory(FLOAT_BYTES * math.prod(shape))
