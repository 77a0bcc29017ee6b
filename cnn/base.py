"""What every part of a spec shares: strictness, lists, shapes, and errors that point into the spec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")

Items = Annotated[tuple[T, ...], Field(strict=False)]
"""A list in JSON, a tuple in Python: the elements stay strict, only the container is converted."""

Probability = Annotated[float, Field(ge=0, le=1)]

Shape = tuple[int, ...]
"""Of one sample: (channels, height, width) for an image, (features,) for a vector."""

RESERVED_NAMES = {"normalization": "the input normalization", "shortcut": "the shortcut of a residual block"}
"""Names of modules that are no layers of the list."""

LayerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


def _require_type(schema: dict[str, Any]) -> None:
    """Say in JSON Schema that the tag of a union is required, although it has a default in Python."""
    if "type" in schema.get("properties", {}):
        schema["required"] = ["type", *(name for name in schema.get("required", []) if name != "type")]


class Spec(BaseModel):
    """One part of a training spec: immutable, strict, and without unknown fields or non-finite numbers."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra=_require_type,
    )


FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What a layer does to one sample: the shape that comes out, its trainable parameters, its multiply-accumulates.

    And what it keeps until the backward pass: its input, its output, and `kept_bytes` beside them (masks, indices,
    statistics of a sample). What does not grow with the batch, such as statistics of the batch, is not counted.
    """

    shape: Shape
    num_parameters: int = 0
    macs: int = 0
    keeps_input: bool = False
    keeps_output: bool = False
    kept_bytes: int = 0
    is_view: bool = False
    """The output is the input in another shape: the same memory."""


class ShapeError(ValueError):
    """A layer cannot take the shape that reaches it; the message says what it needs and what came."""


class Layer(Spec):
    """A layer of a network. Without a name it is called `<type><number>`, counted among the layers of its type."""

    type: str
    """Which layer it is: the discriminator of the union."""
    has_weight: ClassVar[bool] = False
    """Whether it has a weight matrix or filters, which penalties and constraints act on by default."""
    is_fitted: ClassVar[bool] = False
    """Whether `fit` computes its buffers from training images, through which no gradient flows: it must come first."""

    name: LayerName | None = None
    """Prefix of the layer's tensors in `model.safetensors`."""

    def cost(self, shape: Shape) -> LayerCost:
        """Shape arithmetic for one sample of `shape`, without torch. Raises ShapeError when it does not fit."""
        raise NotImplementedError

    def build(self, shape: Shape) -> nn.Module:
        """The torch module for samples of `shape`."""
        raise NotImplementedError

    def fit(self, images: Tensor) -> dict[str, Tensor]:
        """The state dict of its module for normalized training images (N, C, H, W), where `is_fitted`."""
        raise NotImplementedError

    def require_image(self, shape: Shape) -> tuple[int, int, int]:
        if len(shape) != 3:
            raise ShapeError(f"expected an image (channels, height, width), got a vector of {shape[0]} features")
        return shape[0], shape[1], shape[2]

    def require_vector(self, shape: Shape) -> int:
        if len(shape) != 1:
            raise ShapeError(f"expected a vector, got an image of shape {shape}: put a flatten layer before it")
        return shape[0]


class Join(Layer):
    """A layer that makes one tensor of several."""

    def join(self, shapes: Sequence[Shape]) -> LayerCost:
        """Shape arithmetic for samples of `shapes`. Raises ShapeError when they do not fit together."""
        raise NotImplementedError


L = TypeVar("L", bound=Layer)


def with_names(layers: Sequence[L]) -> tuple[L, ...]:
    """The layers, each with a unique name: its own, or `<type><number>` counted among the layers of its type."""
    counts: Counter[str] = Counter()
    named: dict[str, L] = {}
    for index, layer in enumerate(layers):
        counts[layer.type] += 1
        name = layer.name or f"{layer.type}{counts[layer.type]}"
        if name in named or name in RESERVED_NAMES:
            taken = RESERVED_NAMES.get(name, "another layer")
            raise spec_error(
                "duplicate_layer_name", f"/{index}/name", f"layer name {name!r} is taken by {taken}", got=name
            )
        named[name] = layer.model_copy(update={"name": name})
    return tuple(named.values())


def spec_error(code: str, pointer: str, message: str, **context: Any) -> PydanticCustomError:
    """An error about a relation between parts of a spec, for validators that see more than one of them.

    Args:
        code: stable identifier in snake case, for scripts.
        pointer: JSON Pointer (RFC 6901) relative to the validated object, such as `/model/layers/3`.
        message: what was expected and what came.
        context: further facts that an answer shows, such as `allowed` or `got`.
    """
    return PydanticCustomError(code, message, {**context, "pointer": pointer})
