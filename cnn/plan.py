"""What a network costs, from its spec alone: shapes, parameters and multiply-accumulates, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnn.base import Layer, LayerCost, Shape, ShapeError


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer for one sample: the shapes that go in and come out, trainable parameters, multiply-accumulates."""

    name: str
    type: str
    input_shape: Shape
    output_shape: Shape
    num_parameters: int
    macs: int


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
    def output_shape(self) -> Shape:
        return self.layers[-1].output_shape


class LayerDoesNotFit(ValueError):
    """The layer at `index` cannot take what the layers before it give; the message names it."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def plan_layers(layers: Sequence[Layer], shape: Shape) -> Plan:
    """The plan of named `layers` for samples of `shape`. Raises LayerDoesNotFit."""
    rows = []
    for index, layer in enumerate(layers):
        name, layer_type = str(layer.name), str(layer.__class__.model_fields["type"].default)
        try:
            cost: LayerCost = layer.cost(shape)
        except ShapeError as error:
            raise LayerDoesNotFit(index, f"layer {name} ({layer_type}) does not fit {shape}: {error}") from error
        rows.append(LayerPlan(name, layer_type, shape, cost.shape, cost.num_parameters, cost.macs))
        shape = cost.shape
    return Plan(tuple(rows))
