"""Warnings about the layers of a network that a spec writes out one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from cnn.activations import ELU, GELU, Hardsigmoid, Hardswish, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from cnn.base import Layer
from cnn.dropout import DropBlock, Dropout, SpatialDropout, StochasticDepth
from cnn.findings import Finding, Operation, remove
from cnn.layers import Conv2d, Flatten, Linear
from cnn.models import Layers
from cnn.normalization_layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from cnn.plan import Node
from cnn.pooling import AvgPool2d
from cnn.spec import TrainingSpec

ACTIVATIONS = (ReLU, LeakyReLU, ELU, GELU, SiLU, Hardswish, Hardsigmoid, Tanh, Sigmoid)
DROPOUTS = (Dropout, SpatialDropout, DropBlock, StochasticDepth)
OTHER_NORMS = (LayerNorm, GroupNorm, InstanceNorm)
LINEAR = (BatchNorm, Dropout, SpatialDropout, Flatten, AvgPool2d)
"""Layers that are linear at test: what is linear before and behind them stays so as a whole."""


class _Graph:
    """The layers with what comes behind each; empty for a network that goes by a name."""

    def __init__(self, spec: TrainingSpec) -> None:
        self.nodes: Sequence[Node] = ()
        if isinstance(spec.model, Layers):
            self.nodes = spec.model.graph(spec.dataset.info)
        self._behind: dict[int, list[int]] = defaultdict(list)
        for number, node in enumerate(self.nodes, start=1):
            for source in node.inputs:
                self._behind[source].append(number)

    def behind(self, number: int) -> list[tuple[int, Node]]:
        """The layers that take what layer `number`, counted from 1, gives."""
        return [(taker, self.nodes[taker - 1]) for taker in self._behind[number]]

    def search(self, number: int, wanted: type[Layer], stop: tuple[type[Layer], ...]) -> Node | None:
        """The first layer of a kind that layer `number` reaches without passing one of the kinds in `stop`."""
        waiting, seen = self.behind(number), set[int]()
        while waiting:
            taker, node = waiting.pop(0)
            if isinstance(node.layer, wanted):
                return node
            if taker not in seen and not isinstance(node.layer, stop):
                seen.add(taker)
                waiting += self.behind(taker)
        return None


def _dropout_before_batch_norm(spec: TrainingSpec) -> Iterator[Finding]:
    graph = _Graph(spec)
    for number, node in enumerate(graph.nodes, start=1):
        if not isinstance(node.layer, Dropout) or node.layer.keep_prob == 1:
            continue
        found = graph.search(number, BatchNorm, OTHER_NORMS)
        if found:
            yield Finding(
                "dropout_before_batch_norm",
                f"/model{node.pointer}",
                f"without dropout, at test, values behind {node.name} have another variance than {found.name} saw in "
                "training: put dropout behind the last batch norm",
                "Li et al., CVPR 2019 (arXiv 1801.05134)",
                _behind_last_batch_norm(graph.nodes, node),
            )


def _behind_last_batch_norm(nodes: Sequence[Node], dropout: Node) -> list[Operation]:
    """Move it to just before the last layer, where that is a dense one, and both are in the outermost list."""
    last = nodes[-1]
    if not isinstance(last.layer, Linear) or dropout.pointer.count("/") != 2:
        return []
    place = f"/model/layers/{int(last.pointer.rpartition('/')[2]) - 1}"
    return [{"op": "move", "from": f"/model{dropout.pointer}", "path": place}]


def _bias_before_batch_norm(spec: TrainingSpec) -> Iterator[Finding]:
    graph = _Graph(spec)
    for number, node in enumerate(graph.nodes, start=1):
        takers = [taker for _, taker in graph.behind(number)]
        has_bias = isinstance(node.layer, Conv2d | Linear) and node.layer.bias
        if has_bias and len(takers) == 1 and isinstance(takers[0].layer, BatchNorm):
            yield Finding(
                "bias_before_batch_norm",
                f"/model{node.pointer}",
                f"{takers[0].name} subtracts the mean of what it gets, and with it the bias of {node.name}",
                "Ioffe & Szegedy, ICML 2015, section 3.2",
                [{"op": "add", "path": f"/model{node.pointer}/bias", "value": False}],
            )


def _layer_behind_the_logits(spec: TrainingSpec) -> Iterator[Finding]:
    graph = _Graph(spec)
    for node in reversed(graph.nodes):
        if not isinstance(node.layer, (*ACTIVATIONS, *DROPOUTS)):
            return
        yield Finding(
            "layer_behind_logits",
            f"/model{node.pointer}",
            f"cross_entropy takes the logits as the output layer gives them, and has the softmax in it; {node.name} "
            "bounds or drops them",
            "torch.nn.CrossEntropyLoss: unnormalized logits",
            remove(f"/model{node.pointer}"),
        )


def _no_activation_between(spec: TrainingSpec) -> Iterator[Finding]:
    graph = _Graph(spec)
    for number, node in enumerate(graph.nodes, start=1):
        if not _mixes(node.layer):
            continue
        behind = graph.behind(number)
        while len(behind) == 1 and isinstance(behind[0][1].layer, LINEAR):
            behind = graph.behind(behind[0][0])
        if len(behind) == 1 and _mixes(behind[0][1].layer):
            follower = behind[0][1]
            yield Finding(
                "no_activation_between",
                f"/model{follower.pointer}",
                f"{node.name} and {follower.name} with no activation between them compute what one layer could",
                "Goodfellow, Bengio & Courville, Deep Learning, section 6.1 (2016)",
                [
                    {
                        "op": "add",
                        "path": f"/model{follower.pointer}",
                        "value": {"type": "relu", "name": f"relu_{follower.layer.name}"},
                    }
                ],
            )


def _mixes(layer: Layer) -> bool:
    """Whether it is a full linear map: not a part of a factorized convolution, which needs no activation."""
    return isinstance(layer, Linear) or (isinstance(layer, Conv2d) and layer.groups == 1 and layer.kernel_size > 1)


LAYER_RULES: tuple[Callable[[TrainingSpec], Iterator[Finding]], ...] = (
    _dropout_before_batch_norm,
    _bias_before_batch_norm,
    _layer_behind_the_logits,
    _no_activation_between,
)
