"""Architectures: networks that are known by a name, written as lists of our layers.

To add one: write its class with `expand()`, then name it in `Model` at the bottom of `models.py`. Those that are no
lists are in `torchvision_models.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.activations import ReLU
from cnn.base import Layer, Spec, with_names
from cnn.datasets import DatasetInfo
from cnn.layers import Conv2d, Flatten, Linear, Residual, build_layers, graph_of
from cnn.normalization_layers import BatchNorm
from cnn.plan import Node, Plan, plan_graph
from cnn.pooling import GlobalAvgPool2d, MaxPool2d
from cnn.whitening import WhiteningConv2d

if TYPE_CHECKING:
    from torch import nn

Depth = Literal[8, 14, 20, 26, 32, 38, 44, 50, 56]


class Architecture(Spec):
    """A network for the images and classes of a dataset."""

    type: str
    """Which network it is: the discriminator of the union."""

    def graph(self, info: DatasetInfo) -> tuple[Node, ...]:
        """Its layers in the order of the forward pass. Raises LayerDoesNotFit when the images cannot be taken."""
        raise NotImplementedError

    def build(self, info: DatasetInfo) -> nn.Sequential:
        """Its torch modules, freshly initialized; their paths are the names of the layers in the graph."""
        raise NotImplementedError

    def plan(self, info: DatasetInfo) -> Plan:
        """Its costs, layer by layer. Raises LayerDoesNotFit."""
        return _plan(self, info)


@lru_cache(maxsize=64)  # a spec is planned several times while it is checked
def _plan(architecture: Architecture, info: DatasetInfo) -> Plan:
    return plan_graph(architecture.graph(info), info.shape)


class LayerList(Architecture):
    """A network whose layers are applied one after the other."""

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        """Its layers, each with a name."""
        raise NotImplementedError

    def graph(self, info: DatasetInfo) -> tuple[Node, ...]:
        return graph_of(self.expand(info))

    def build(self, info: DatasetInfo) -> nn.Sequential:
        return build_layers(self.expand(info), info.shape)


def conv(out_channels: int, kernel_size: int = 3, stride: int = 1) -> list[Layer]:
    """A convolution that keeps the size (divides it by the stride), and batch norm in the place of its bias."""
    padding = (kernel_size - 1) // 2
    return [
        Conv2d(out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding, bias=False),
        BatchNorm(),
    ]


class LeNet(LayerList):
    """LeNet-5 with ReLU and max-pooling in the place of its squashing and averaging (LeCun et al., 1998).

    Made for 28 × 28 and 32 × 32 images; the first convolution pads 28 to 32.
    """

    type: Literal["lenet"] = "lenet"

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        padding = 2 if min(info.shape[1:]) < 32 else 0
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


class VGGSmall(LayerList):
    """Pairs of 3 × 3 convolutions between poolings (Simonyan & Zisserman, ICLR 2015), for small images.

    Three stages of `width`, 2 `width` and 4 `width` channels, each convolution with batch norm and ReLU, then the mean
    of each channel and one dense layer. Takes images of at least 8 × 8 pixels.
    """

    type: Literal["vgg_small"] = "vgg_small"
    width: Annotated[int, Field(ge=1, le=4096)] = 32
    """Channels of the first stage."""

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        layers: list[Layer] = []
        for factor in (1, 2, 4):
            for _ in range(2):
                layers += [*conv(factor * self.width), ReLU()]
            layers.append(MaxPool2d(kernel_size=2))
        return with_names([*layers, GlobalAvgPool2d(), Linear(name="fc", out_features=info.num_classes)])


class ResNet(LayerList):
    """The residual network for small images of He et al. (CVPR 2016, section 4.2): depth 6n + 2.

    A 3 × 3 convolution, three stages of n blocks with `width`, 2 `width` and 4 `width` channels, the mean of each
    channel and one dense layer. Where a stage halves the size, the shortcut is a 1 × 1 convolution (the paper's
    option B).
    """

    type: Literal["resnet"] = "resnet"
    depth: Depth = 20
    """Number of layers with weights, those of shortcuts not counted."""
    width: Annotated[int, Field(ge=1, le=4096)] = 16
    """Channels of the first stage."""

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        layers: list[Layer] = [*conv(self.width), ReLU()]
        channels = self.width
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                out_channels = self.width * 2**stage
                stride = 2 if stage > 0 and block == 0 else 1
                layers += [self._block(channels, out_channels, stride), ReLU()]
                channels = out_channels
        return with_names([*layers, GlobalAvgPool2d(), Linear(name="fc", out_features=info.num_classes)])

    @staticmethod
    def _block(channels: int, out_channels: int, stride: int) -> Residual:
        return Residual.model_validate(
            {
                "layers": [*conv(out_channels, stride=stride), ReLU(), *conv(out_channels)],
                "shortcut": [] if channels == out_channels else conv(out_channels, kernel_size=1, stride=stride),
            }
        )


class FastNet(LayerList):
    """A net for accuracy per second on small images, after the CIFAR-10 speed records (Jordan, 2024, arXiv 2404.00498).

    A frozen convolution that whitens patches, then two 3 × 3 convolutions with `width` and 2 `width` channels. Pooling
    comes before what can follow it, and the whitening needs no gradient: that is where its speed comes from.
    """

    type: Literal["fast_net"] = "fast_net"
    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Channels of the first trained convolution."""

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        layers: list[Layer] = [
            WhiteningConv2d(name="whitening", kernel_size=3),
            MaxPool2d(kernel_size=2),
            ReLU(),
            Conv2d(name="conv1", out_channels=self.width, kernel_size=3, padding="same", bias=False),
            MaxPool2d(kernel_size=2),
            BatchNorm(),
            ReLU(),
            Conv2d(name="conv2", out_channels=2 * self.width, kernel_size=3, padding="same", bias=False),
            BatchNorm(),
            ReLU(),
        ]
        if min(info.shape[1:]) // 4 >= 3:
            layers.append(MaxPool2d(kernel_size=3))
        return with_names([*layers, Flatten(), Linear(name="fc", out_features=info.num_classes)])
