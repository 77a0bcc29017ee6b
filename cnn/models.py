"""Models: lists of layers, written out or by the name of an architecture of `architectures.py`."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

from cnn.architectures import FastNet, LeNet, ResNet, VGGSmall
from cnn.base import Items, Spec, with_names
from cnn.datasets import DatasetInfo
from cnn.layers import Layer, build_layers

if TYPE_CHECKING:
    from torch import nn

    from cnn.spec import TrainingSpec


class Layers(Spec):
    """A network as a list of layers, from the image to one output (logit) per class."""

    type: Literal["layers"] = "layers"
    layers: Annotated[Items[Layer], Field(min_length=1, max_length=1000), AfterValidator(with_names)]
    """In the order in which they are applied."""

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        return self.layers


def build_network(spec: TrainingSpec) -> nn.Sequential:
    """The network of `spec`, freshly initialized: input normalization first, then each layer under its name.

    Takes images (N, C, H, W), uint8 or float in 0..255, and gives logits (N, classes). The keys of its state dict are
    those of `model.safetensors`.
    """
    from torch import nn

    from cnn.nn.normalization import Raw

    info = spec.dataset.info
    normalization = spec.normalization.build(info.shape) if spec.normalization else Raw()
    return nn.Sequential(
        OrderedDict([("normalization", normalization), *build_layers(spec.layers, info.shape).named_children()])
    )


Model = TypeAliasType("Model", Annotated[Layers | LeNet | VGGSmall | ResNet | FastNet, Field(discriminator="type")])
