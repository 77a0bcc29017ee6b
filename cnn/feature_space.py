"""Feature-space augmentation: what a spec says about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cnn.base import FLOAT_BYTES, Probability, spec_error
from cnn.plan import Plan
from cnn.transform import Mixing, Stage, Transform

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cnn.transforms.features import Neighbors

MAX_SPLIT_BYTES = 4 * 2**30
"""That the features of a training split may take."""


class FeatureSpace(Transform):
    """New features of a class from those of its samples, behind a named layer (DeVries & Taylor, ICLR 2017).

    interpolate  c' = (c_k - c_j) λ + c_j
    extrapolate  c' = (c_j - c_k) λ + c_j
    noise        c' = c + γ X with X_i ~ N(0, σ_i²), where σ_i is the standard deviation of feature i

    c_k is drawn from the `num_neighbors` nearest of c_j's own class, by Euclidean distance; a sample without any stays
    as it is. From "batch" these are the other samples of the minibatch, and σ is that of the minibatch. From "split"
    they are those of the whole training split, whose features are computed at the begin of each epoch, without
    augmentation and as in evaluation; σ is that of the split, and generated images stay as they are.

    The paper adds the new samples to the set; here each sample is replaced with probability `p`, so that a minibatch
    keeps its size and a share of 1 - p of it is as it was. The gradient flows through c_j and, from "batch", through
    c_k; the features of the split, the choice of neighbours and σ are constants. In evaluation nothing is changed.
    """

    type: Literal["feature_space"] = "feature_space"
    stage: ClassVar[Stage] = Stage.NETWORK
    layer: Annotated[str, Field(min_length=1, max_length=64)]
    """Name of a layer of the network, not one inside a block and not the last; its output is what is changed."""
    mode: Literal["extrapolate", "interpolate", "noise"] = "extrapolate"
    """Which of the three."""
    weight: Annotated[float, Field(ge=0, le=100)] = 0.5
    """λ of interpolation and extrapolation."""
    num_neighbors: Annotated[int, Field(ge=1, le=1000)] = 10
    """Nearest features of the same class from which one is drawn."""
    neighbors_from: Literal["batch", "split"] = "batch"
    """Where neighbours and standard deviations come from."""
    noise: Annotated[float, Field(ge=0, le=100)] = 0.5
    """γ of noise."""
    p: Probability = 0.5
    """Probability that a sample's features are replaced."""

    def within_batch(self, features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The features (N, …) of a minibatch with labels (N,), some of them replaced."""
        from cnn.transforms.features import nearest_in_class

        flat = features.flatten(1)
        neighbors = nearest_in_class(flat.detach(), labels, self.num_neighbors)
        return self._replace(features, neighbors, flat, flat.detach().std(dim=0, correction=0), generator)

    def within_split(
        self, features: Tensor, neighbors: Neighbors, split: Tensor, std: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The same, with the neighbours of its samples in `split` (M, D) and the deviations (D,) of that."""
        return self._replace(features, neighbors, split, std, generator)

    def _replace(
        self, features: Tensor, neighbors: Neighbors, partners: Tensor, std: Tensor, generator: torch.Generator
    ) -> Tensor:
        import torch

        from cnn.transforms.features import add_noise, extrapolate, interpolate

        flat = features.flatten(1)
        chosen = torch.rand(len(flat), generator=generator, device=flat.device) < self.p
        if self.mode == "noise":
            changed = add_noise(flat, std, self.noise, generator)
        else:
            chosen &= neighbors.counts > 0
            partner = partners[neighbors.draw(generator)]
            move = extrapolate if self.mode == "extrapolate" else interpolate
            changed = move(flat, partner, self.weight)
        return torch.where(chosen[:, None], changed, flat).reshape(features.shape)


def check_feature_space(transforms: Sequence[Transform], plan: Plan, num_train: int) -> None:
    """Raise spec_error, with a pointer into the list, where features cannot be augmented."""
    shapes = {layer.name: layer.output_shape for layer in plan.layers[:-1] if "." not in layer.name}
    mixing = next((transform.type for transform in transforms if isinstance(transform, Mixing)), None)
    for index, member in enumerate(transforms):
        if not isinstance(member, FeatureSpace):
            continue
        pointer = f"/augmentation/{index}"
        if member.layer not in shapes:
            raise spec_error(
                "no_such_layer",
                f"{pointer}/layer",
                f"feature_space: expected a layer outside of blocks and before the last, got {member.layer!r}; "
                f"there are: {', '.join(shapes)}",
                allowed=list(shapes),
                got=member.layer,
            )
        if mixing:
            raise spec_error(
                "augmentation_mismatch",
                pointer,
                f"feature_space: it needs the class of each sample, which {mixing} mixes",
            )
        num_bytes = num_train * math.prod(shapes[member.layer]) * FLOAT_BYTES
        if member.neighbors_from == "split" and num_bytes > MAX_SPLIT_BYTES:
            raise spec_error(
                "model_too_large",
                f"{pointer}/layer",
                f"feature_space: the features of {num_train:,} images behind {member.layer} take {num_bytes:,} bytes, "
                f"the limit is {MAX_SPLIT_BYTES:,}",
                got=member.layer,
            )
