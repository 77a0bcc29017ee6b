"""Torchvision's classifiers as they were published, but for the number of classes; no weights are downloaded.

Their graphs are in `torchvision_models.json`, so that they are planned without torch. To add one: write its class, name
it in `Model` at the bottom of `models.py`, and run `python -m cnn.torchvision_table`, which writes that file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter
from typing_extensions import TypeAliasType

from cnn import base
from cnn.activations import GELU, Hardsigmoid, Hardswish, ReLU, Sigmoid, SiLU
from cnn.architectures import Architecture
from cnn.base import FLOAT_BYTES, LayerCost, Shape, ShapeError
from cnn.datasets import DatasetInfo
from cnn.dropout import Dropout, StochasticDepth
from cnn.layers import Conv2d, Flatten, Linear
from cnn.normalization_layers import BatchNorm
from cnn.plan import LayerDoesNotFit, Node
from cnn.pooling import AdaptiveAvgPool2d, MaxPool2d

if TYPE_CHECKING:
    from torch import nn

TABLE = Path(__file__).with_name("torchvision_models.json")


class Add(base.Join):
    """The sum of images of one shape."""

    type: Literal["add"] = "add"

    def join(self, shapes: Sequence[Shape]) -> LayerCost:
        if len(set(shapes)) > 1:
            raise ShapeError(f"cannot add {' and '.join(map(str, shapes))}")
        return LayerCost(shapes[0])


class Multiply(base.Join):
    """The channels (C, 1, 1) times the image (C, H, W)."""

    type: Literal["multiply"] = "multiply"

    def join(self, shapes: Sequence[Shape]) -> LayerCost:
        factors, image = shapes
        if factors != (image[0], 1, 1):
            raise ShapeError(f"cannot multiply {image} by {factors}")
        return LayerCost(image, keeps_input=True)


class ChannelScale(base.Layer):
    """Each channel times a learned number: ConvNeXt's `layer_scale`."""

    type: Literal["channel_scale"] = "channel_scale"

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost(shape, num_parameters=shape[0], keeps_input=True)


class PixelLinear(base.Layer):
    """A dense layer over the channels of each pixel."""

    has_weight: ClassVar[bool] = True

    type: Literal["pixel_linear"] = "pixel_linear"
    out_features: int

    def cost(self, shape: Shape) -> LayerCost:
        weights = shape[0] * self.out_features
        macs = weights * math.prod(shape[1:])
        return LayerCost((self.out_features, *shape[1:]), weights + self.out_features, macs, keeps_input=True)


class PixelNorm(base.Layer):
    """Layer normalization over the channels of each pixel."""

    type: Literal["pixel_norm"] = "pixel_norm"

    def cost(self, shape: Shape) -> LayerCost:
        statistics = 2 * math.prod(shape[1:])
        return LayerCost(shape, 2 * shape[0], keeps_input=True, kept_bytes=FLOAT_BYTES * statistics)


class GreyToRGB(base.Layer):
    """A one-channel image three times."""

    type: Literal["grey_to_rgb"] = "grey_to_rgb"

    def cost(self, shape: Shape) -> LayerCost:
        return LayerCost((3, *shape[1:]))


TableLayer = TypeAliasType(
    "TableLayer",
    Annotated[
        Conv2d
        | BatchNorm
        | ReLU
        | SiLU
        | GELU
        | Sigmoid
        | Hardswish
        | Hardsigmoid
        | MaxPool2d
        | AdaptiveAvgPool2d
        | Flatten
        | Linear
        | Dropout
        | StochasticDepth
        | Add
        | Multiply
        | ChannelScale
        | PixelLinear
        | PixelNorm,
        Field(discriminator="type"),
    ],
)


@cache
def table_graph(name: str) -> tuple[Node, ...]:
    """The graph of a network for three-channel images and 1,000 classes, by torchvision's name."""
    rows = json.loads(TABLE.read_text())[name]
    layer_of = TypeAdapter[base.Layer](TableLayer).validate_python
    return tuple(Node(path, layer_of(layer), tuple(inputs)) for path, inputs, layer in rows)


class TorchvisionClassifier(Architecture):
    """A classifier of torchvision; the paths of its modules are torchvision's."""

    min_side: ClassVar[int] = 1
    """Of the smallest images that leave something to compute with."""
    flattens: ClassVar[bool] = True
    """Whether its forward method flattens the pooled image; else its head does."""

    @property
    def torchvision_name(self) -> str:
        """Its name in `torchvision.models`."""
        return self.type

    def graph(self, info: DatasetInfo) -> tuple[Node, ...]:
        channels, *sides = info.shape
        if channels not in (1, 3):
            raise LayerDoesNotFit("shape_mismatch", "", f"{self.type} takes images of 1 or 3 channels, got {channels}")
        if min(sides) < self.min_side:
            raise LayerDoesNotFit(
                "shape_mismatch",
                "",
                f"{self.type} takes images of at least {self.min_side} × {self.min_side} pixels, "
                f"got {sides[0]} × {sides[1]}",
            )
        *body, head = table_graph(self.torchvision_name)
        nodes = [*body, Node(head.name, Linear(out_features=info.num_classes), head.inputs)]
        if channels == 3:
            return tuple(nodes)
        shifted = (Node(n.name, n.layer, tuple(index + 1 for index in n.inputs)) for n in nodes)
        return (Node("grey_to_rgb", GreyToRGB(), (0,)), *shifted)

    def build(self, info: DatasetInfo) -> nn.Sequential:
        from torch import nn
        from torchvision import models

        from cnn.nn import classifiers

        model = models.get_model(self.torchvision_name, weights=None, num_classes=info.num_classes)
        classifiers.replace_dropout(model)
        network = nn.Sequential()
        if info.shape[0] == 1:
            network.add_module("grey_to_rgb", classifiers.GreyToRGB())
        *body, (head_name, head) = model.named_children()
        for name, module in body:
            network.add_module(name, module)
        if self.flattens:
            network.add_module("flatten", nn.Flatten())
        network.add_module(head_name, head)
        return network


class ResNet18(TorchvisionClassifier):
    """ResNet-18 (He et al., CVPR 2016)."""

    type: Literal["resnet18"] = "resnet18"


class ResNet50(TorchvisionClassifier):
    """ResNet-50 with the stride in its 3 × 3 convolutions (He et al., CVPR 2016; v1.5)."""

    type: Literal["resnet50"] = "resnet50"


class MobileNetV3(TorchvisionClassifier):
    """MobileNetV3 (Howard et al., ICCV 2019)."""

    type: Literal["mobilenet_v3"] = "mobilenet_v3"
    size: Literal["small", "large"] = "large"
    """Which of the two networks of the paper."""

    @property
    def torchvision_name(self) -> str:
        return f"mobilenet_v3_{self.size}"


class EfficientNetB0(TorchvisionClassifier):
    """EfficientNet-B0 (Tan & Le, ICML 2019)."""

    type: Literal["efficientnet_b0"] = "efficientnet_b0"


class ConvNeXtTiny(TorchvisionClassifier):
    """ConvNeXt-T (Liu et al., CVPR 2022). It divides the sides by 32, without padding: 32 × 32 pixels at least."""

    min_side: ClassVar[int] = 32
    flattens: ClassVar[bool] = False

    type: Literal["convnext_tiny"] = "convnext_tiny"
