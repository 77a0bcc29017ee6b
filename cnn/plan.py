"""What a network costs, from its spec alone: shapes, parameters and multiply-accumulates, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnn.base import Layer, Shape, ShapeError


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
    """A layer cannot take what the layers before it give; the message names it, `pointer` leads to it in the list."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


def plan_layers(layers: Sequence[Layer], shape: Shape) -> Plan:
    """The plan of named `layers` for samples of `shape`; inner layers come before the block that they make up.

    Raises LayerDoesNotFit.
    """
    return Plan(tuple(_rows(layers, shape, prefix="", pointer="")))


def _rows(layers: Sequence[Layer], shape: Shape, prefix: str, pointer: str) -> Iterator[LayerPlan]:
    for index, layer in enumerate(layers):
        name, place = f"{prefix}{layer.name}", f"{pointer}/{index}"
        for branch in layer.branches():
            yield from _rows(branch.layers, shape, f"{name}.{branch.prefix}", f"{place}/{branch.field}")
        try:
            cost = layer.cost(shape)
        except ShapeError as error:
            raise LayerDoesNotFit(place, f"layer {name} ({layer.type}) does not fit {shape}: {error}") from error
        yield LayerPlan(name, layer.type, shape, cost.shape, cost.num_parameters, cost.macs)
        shape = cost.shape


def weight_names(layers: Sequence[Layer], prefix: str = "") -> list[str]:
    """The layers that have a weight matrix or filters, those inside blocks by their dotted names."""
    names = []
    for layer in layers:
        name = f"{prefix}{layer.name}"
        if layer.has_weight:
            names.append(name)
        for branch in layer.branches():
            names += weight_names(branch.layers, f"{name}.{branch.prefix}")
    return names
