"""Models: lists of layers, written out or by the name of an architecture.

To add an architecture: write its class with `expand()`, then name it in `Model` at the bottom.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

from cnn.activations import ReLU
from cnn.base import Items, Spec, with_names
from cnn.datasets import DatasetInfo
from cnn.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, build_layers

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


class LeNet(Spec):
    """LeNet-5 with ReLU and max-pooling in the place of its squashing and averaging (LeCun et al., 1998).

    Made for 28 × 28 and 32 × 32 images; the first convolution pads 28 to 32.
    """

    type: Literal["lenet"] = "lenet"

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        padding = 2 if info.shape[1] < 32 else 0
        features: list[Layer] = [
            Conv2d(name="conv1", out_channels=6, kernel_size=5, padding=padding),
            ReLU(),
            MaxPool2d(kernel_size=2),
            Conv2d(name="conv2", out_channels=16, kernel_size=5),
            ReLU(),
            MaxPool2d(kernel_size=2),
            Flatten(),
        ]
        head: list[Layer] = [
            Linear(name="fc1", out_features=120),
            ReLU(),
            Linear(name="fc2", out_features=84),
            ReLU(),
            Linear(name="fc3", out_features=info.num_classes),
        ]
        return with_names(features + head)


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


Model = TypeAliasType("Model", Annotated[Layers | LeNet, Field(discriminator="type")])
