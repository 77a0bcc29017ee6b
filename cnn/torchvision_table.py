"""`python -m cnn.torchvision_table` writes `torchvision_models.json`: the graphs of torchvision's classifiers.

Per network a list of [path of the module, tensors that it takes, layer]; tensor 0 is the image, tensor n what the n-th
row gives. Permutations and identities are left out: they are the tensor that goes in.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torchvision.ops.misc import Permute

from cnn import base
from cnn.activations import GELU, Hardsigmoid, Hardswish, ReLU, Sigmoid, SiLU
from cnn.datasets import DatasetInfo
from cnn.dropout import Dropout, StochasticDepth
from cnn.layers import Conv2d, Flatten, Linear
from cnn.nn import dropout
from cnn.normalization_layers import BatchNorm
from cnn.pooling import AdaptiveAvgPool2d, MaxPool2d
from cnn.torchvision_models import (
    TABLE,
    Add,
    ChannelScale,
    ConvNeXtTiny,
    EfficientNetB0,
    MobileNetV3,
    Multiply,
    PixelLinear,
    PixelNorm,
    ResNet18,
    ResNet50,
    TorchvisionClassifier,
)

CLASSIFIERS: tuple[TorchvisionClassifier, ...] = (
    ResNet18(),
    ResNet50(),
    MobileNetV3(size="small"),
    MobileNetV3(size="large"),
    EfficientNetB0(),
    ConvNeXtTiny(),
)
IMAGENET = DatasetInfo("imagenet", (3, 224, 224), labels=("",) * 1000, num_train=0, num_test=0)
ADDITIONS = {operator.add, operator.iadd}
MULTIPLICATIONS = {operator.mul, operator.imul}

Row = tuple[str, tuple[int, ...], base.Layer]


class _Tracer(fx.Tracer):
    """Goes down to the modules that have no children, torchvision's own ones included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def table() -> dict[str, list[Row]]:
    return {classifier.torchvision_name: graph_rows(classifier) for classifier in CLASSIFIERS}


def graph_rows(classifier: TorchvisionClassifier) -> list[Row]:
    """The graph of a classifier, read from its torch modules."""
    with torch.device("meta"):
        network = classifier.build(IMAGENET)
    rows: list[Row] = []
    tensors: dict[fx.Node, int] = {}
    channels_last: dict[fx.Node, bool] = {}
    for node in _Tracer().trace(network).nodes:
        sources = [source for source in node.all_input_nodes if source.op != "get_attr"]
        channels_last[node] = any(channels_last[source] for source in sources)
        if node.op == "placeholder":
            tensors[node] = 0
        elif node.op == "call_module":
            module = network.get_submodule(node.target)
            if isinstance(module, Permute):
                channels_last[node] = module.dims == [0, 2, 3, 1]
            if isinstance(module, Permute | nn.Identity):
                tensors[node] = tensors[sources[0]]
                continue
            layer = _layer(module, channels_last[node])
            rows.append((node.target, tuple(tensors[source] for source in sources), layer))
            tensors[node] = len(rows)
        elif node.op == "call_function":
            layer = _function(node, len(sources))
            path = next(reversed(node.meta["nn_module_stack"]))
            rows.append((f"{path}.{layer.type}", tuple(tensors[source] for source in sources), layer))
            tensors[node] = len(rows)
    return rows


def _function(node: fx.Node, num_tensors: int) -> base.Layer:
    if node.target in ADDITIONS and num_tensors == 2:
        return Add()
    if node.target in MULTIPLICATIONS:
        return Multiply() if num_tensors == 2 else ChannelScale()
    raise ValueError(f"no layer is known for the function {node.target} at {node.name}")


def _layer(module: nn.Module, channels_last: bool) -> base.Layer:
    """The spec of a torch module; `channels_last` says that images reach it as (N, H, W, C)."""
    match module:
        case nn.Conv2d():
            return Conv2d(
                out_channels=module.out_channels,
                kernel_size=_side(module.kernel_size),
                stride=_side(module.stride),
                padding=_side(module.padding),
                dilation=_side(module.dilation),
                groups=module.groups,
                bias=module.bias is not None,
            )
        case nn.BatchNorm2d():
            return BatchNorm(eps=module.eps, momentum=module.momentum or 0)
        case nn.LayerNorm():
            return PixelNorm()
        case nn.MaxPool2d():
            return MaxPool2d(
                kernel_size=_side(module.kernel_size), stride=_side(module.stride), padding=_side(module.padding)
            )
        case nn.AdaptiveAvgPool2d():
            return AdaptiveAvgPool2d(output_size=_side(module.output_size))
        case nn.Linear():
            return (PixelLinear if channels_last else Linear)(out_features=module.out_features)
        case dropout.Dropout():
            return Dropout(keep_prob=module.keep_prob)
        case dropout.MaskedDropout(mask_dimensions=1):
            return StochasticDepth(keep_prob=module.keep_prob)
    return PLAIN[type(module)]()


PLAIN: dict[type[nn.Module], Callable[[], base.Layer]] = {
    nn.Flatten: Flatten,
    nn.ReLU: ReLU,
    nn.SiLU: SiLU,
    nn.GELU: GELU,
    nn.Sigmoid: Sigmoid,
    nn.Hardswish: Hardswish,
    nn.Hardsigmoid: Hardsigmoid,
}


def _side(size: Any) -> int:
    """Of what is square: torch has a number or a pair here."""
    if isinstance(size, int):
        return size
    height, width = size
    if height != width:
        raise ValueError(f"expected something square, got {size}")
    return int(height)


def table_text(networks: dict[str, list[Row]]) -> str:
    """JSON with one line per row, without the fields that have their default."""
    blocks = []
    for name, rows in networks.items():
        lines = ",\n".join(_lines(rows))
        blocks.append(f'"{name}": [\n{lines}\n]')
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _lines(rows: list[Row]) -> Iterator[str]:
    for path, inputs, layer in rows:
        fields = {"type": layer.type, **layer.model_dump(exclude_defaults=True)}
        yield json.dumps([path, inputs, fields], separators=(",", ":"))


if __name__ == "__main__":
    TABLE.write_text(table_text(table()))
    sys.stderr.write(f"{TABLE}: written with torchvision {torchvision.__version__}\n")
