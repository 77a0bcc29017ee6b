"""A network in training whose features are augmented behind some of its layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cnn.feature_space import FeatureSpace
from cnn.precision import FORMATS
from cnn.transforms.features import Neighbors, nearest_class_by_class

BATCH = 500


@dataclass(frozen=True, slots=True)
class _Split:
    """The features (N, D) of the training split behind a layer, the neighbours among them, and their deviations."""

    features: Tensor
    neighbors: Neighbors
    std: Tensor


class FeatureTraining:
    """Runs a network layer by layer, and changes what comes out of those that a spec names.

    Args:
        network: its children are its layers, in order.
        members: what to do behind which of them.
        images, labels: the training split, uint8 (N, C, H, W) and int64 (N,), on the device.
        generator: whose numbers decide what is changed; at the position of each step.

    The features of the whole split follow from the weights at the begin of an epoch, which are kept, and are part of a
    checkpoint: a run that is resumed inside the epoch computes the same features again.
    """

    def __init__(
        self,
        network: nn.Sequential,
        members: list[FeatureSpace],
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
    ) -> None:
        self._network = network
        self._members = members
        self._images = images
        self._labels = labels
        self._generator = generator
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._snapshot: dict[str, Tensor] = {}
        self._splits: dict[str, _Split] = {}
        self._layers = {member.layer for member in members if member.neighbors_from == "split"}

    def begin(self, epoch: int) -> None:
        """Before the first update of an epoch, or of a resumed run: the features of the split."""
        if not self._layers:
            return
        if int(self._epoch) != epoch:
            self._epoch.fill_(epoch)
            self._snapshot = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
            self._splits = {}
        if not self._splits:
            self._splits = {layer: self._features_behind(layer) for layer in self._layers}

    @torch.no_grad()
    def _features_behind(self, layer: str) -> _Split:
        names = [name for name, _ in self._network.named_children()]
        part = nn.Sequential(
            OrderedDict((name, self._network.get_submodule(name)) for name in names[: names.index(layer) + 1])
        )
        modes = {module: module.training for module in part.modules()}
        part.eval()
        weights = {name: self._snapshot[name] for name in part.state_dict()}
        batches = (batch.contiguous(memory_format=torch.channels_last) for batch in torch.split(self._images, BATCH))
        features = torch.cat([functional_call(part, weights, (batch,)).flatten(1) for batch in batches])
        for module, mode in modes.items():
            module.training = mode
        most = max(member.num_neighbors for member in self._members)
        neighbors = nearest_class_by_class(features, self._labels, most)
        return _Split(features, neighbors, features.std(dim=0, correction=0))

    def forward(self, images: Tensor, labels: Tensor, samples: Tensor) -> Tensor:
        """Logits of a minibatch; `samples` are its places in the training split, -1 for what is not in it."""
        x = images
        for name, layer in self._network.named_children():
            x = layer(x)
            for member in self._members:
                if member.layer == name:
                    x = self._changed(member, x, labels, samples)
        return x

    def _changed(self, member: FeatureSpace, features: Tensor, labels: Tensor, samples: Tensor) -> Tensor:
        features = features.float() if features.dtype in FORMATS.values() else features
        if member.neighbors_from == "batch":
            return member.within_batch(features, labels, self._generator)
        split = self._splits[member.layer]
        neighbors = split.neighbors.of(samples).first(member.num_neighbors)
        return member.within_split(features, neighbors, split.features, split.std, self._generator)

    def tensors(self) -> dict[str, Tensor]:
        """The weights at the begin of the epoch, where they are needed: not copies."""
        if not self._snapshot:
            return {}
        return {"epoch": self._epoch, **{f"network.{name}": tensor for name, tensor in self._snapshot.items()}}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave. Raises KeyError when a tensor is missing."""
        self._splits = {}
        if "epoch" not in tensors:
            return
        self._epoch.copy_(tensors["epoch"])
        # With the strides of the network's own: another layout in memory gives other last bits.
        self._snapshot = {
            name: torch.empty_like(tensor).copy_(tensors[f"network.{name}"])
            for name, tensor in self._network.state_dict().items()
        }
