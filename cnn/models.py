"""Models: lists of layers, written out or by the name of an architecture, and the classifiers of torchvision."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

from cnn.architectures import FastNet, LayerList, LeNet, ResNet, VGGSmall
from cnn.base import Items, with_names
from cnn.datasets import DatasetInfo
from cnn.layers import Layer, graph_of
from cnn.plan import Node
from cnn.torchvision_models import ConvNeXtTiny, EfficientNetB0, MobileNetV3, ResNet18, ResNet50
from cnn.transform import Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from cnn.spec import TrainingSpec

MAX_FIT_IMAGES = 5000


class Layers(LayerList):
    """A network as a list of layers, from the image to one output (logit) per class."""

    type: Literal["layers"] = "layers"
    layers: Annotated[Items[Layer], Field(min_length=1, max_length=1000), AfterValidator(with_names)]
    """In the order in which they are applied."""

    def expand(self, info: DatasetInfo) -> tuple[Layer, ...]:
        return self.layers

    def graph(self, info: DatasetInfo) -> tuple[Node, ...]:
        return graph_of(self.layers, "/layers")


def build_network(spec: TrainingSpec) -> nn.Sequential:
    """The network of `spec`, freshly initialized: input normalization first, then each layer under its name.

    Takes images (N, C, H, W), uint8 or float in 0..255, and gives logits (N, classes). The keys of its state dict are
    those of `model.safetensors`. Max-pooling comes before a monotone activation, unless the spec acts between layers.
    """
    from cnn.native.network import Network
    from cnn.nn.initialization import initialize
    from cnn.nn.normalization import Raw
    from cnn.nn.ordering import put_maxima_first

    info = spec.dataset.info
    normalization = spec.normalization.build(info.shape) if spec.normalization else Raw()
    model = spec.model.build(info)
    if spec.training.init != "default":
        for name in spec.plan().weight_layers:
            initialize(model.get_submodule(name), spec.training.init)
    if not any(transform.stage is Stage.NETWORK for transform in spec.augmentation):
        put_maxima_first(model)
    return Network(OrderedDict([("normalization", normalization), *model.named_children()]))


def fit_statistics(network: nn.Sequential, spec: TrainingSpec, images: NDArray[np.uint8]) -> None:
    """Set the buffers of `network` that come from the images (N, C, H, W) of the training split.

    They are the statistics of the input normalization, and then the filters of a whitening layer, from at most
    `MAX_FIT_IMAGES` images that lie evenly in the split.
    """
    import torch

    if spec.normalization:
        network.get_submodule("normalization").load_state_dict(spec.normalization.fit(images))
    fitted = [node for node in spec.model.graph(spec.dataset.info) if node.layer.is_fitted]
    if fitted:
        sample = torch.from_numpy(images[:: -(-len(images) // MAX_FIT_IMAGES)])
        normalized = network.get_submodule("normalization")(sample)
        for node in fitted:
            network.get_submodule(node.name).load_state_dict(node.layer.fit(normalized))


Model = TypeAliasType(
    "Model",
    Annotated[
        Layers
        | LeNet
        | VGGSmall
        | ResNet
        | FastNet
        | ResNet18
        | ResNet50
        | MobileNetV3
        | EfficientNetB0
        | ConvNeXtTiny,
        Field(discriminator="type"),
    ],
)
