"""Losses. To add one: write its class, then name it in `Loss` at the bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType

from cnn.base import Items, Spec, spec_error
from cnn.datasets import DatasetInfo
from cnn.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor


PositiveWeight = Annotated[float, Field(gt=0)]


class CrossEntropy(Spec):
    """-Σ_c w_c q(c) log softmax(z)_c, where q = (1 - s) · one-hot(label) + s / classes with s = `label_smoothing`.

    Label smoothing: Szegedy et al., CVPR 2016. Both s and the class weights w act on the training loss alone;
    validation and test losses have s = 0 and w = 1.

    The loss of a batch is the sum over its samples, divided by their number. Torch's `reduction="mean"` would divide
    by the sum of the labels' weights instead, so that what a rare class counts would depend on the batch it is in.
    """

    model_config = ConfigDict(json_schema_extra=None)  # nothing needs the tag as long as there is no other loss

    type: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share s of the target that is spread evenly over the classes."""

    class_weights: Literal["balanced"] | Annotated[Items[PositiveWeight], Field(min_length=1)] | None = None
    """w, one a class; "balanced" is w_c = N / (classes · N_c) for N_c of N training images in class c; null is 1."""

    def build(self, labels: Tensor, num_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of logits (N, classes) and targets that gives the sum over the samples.

        Targets are labels (N,), or probabilities (N, classes) in place of the one-hot vectors.
        `labels` are those of the training split, on the device where the function will be used.
        """
        from torch.nn.functional import cross_entropy

        weights = self._weights(labels, num_classes)

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            weight = None if weights is None else weights.to(logits.dtype)
            return cross_entropy(logits, targets, weight=weight, label_smoothing=self.label_smoothing, reduction="sum")

        return loss

    def _weights(self, labels: Tensor, num_classes: int) -> Tensor | None:
        import torch

        if self.class_weights is None:
            return None
        if self.class_weights != "balanced":
            return torch.tensor(self.class_weights, dtype=torch.float64, device=labels.device)
        counts = torch.bincount(labels, minlength=num_classes)
        absent = torch.nonzero(counts == 0).flatten().tolist()
        if absent:
            raise TrainingError(
                "class_without_images",
                f"balanced class weights need training images of every class, there are none of {absent}",
                "data",
                "raise split.num_train, lower split.val_fraction, or list the weights in loss.class_weights",
            )
        return len(labels) / (num_classes * counts.double())


# With its second member this becomes a union with the discriminator `type`, and its first one's `model_config` goes.
Loss = TypeAliasType("Loss", CrossEntropy)


def check_class_weights(loss: Loss, info: DatasetInfo) -> None:
    """Raise spec_error when there is not one weight for each class of the dataset."""
    weights = loss.class_weights
    if isinstance(weights, tuple) and len(weights) != info.num_classes:
        raise spec_error(
            "wrong_number_of_classes",
            "/loss/class_weights",
            f"expected a weight for each of the {info.num_classes} classes of {info.name}, got {len(weights)}",
            got=len(weights),
        )
