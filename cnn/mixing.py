"""Augmentation that mixes samples and their labels. To add one: write its class, then name it in `augmentation.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cnn.base import Probability
from cnn.transform import Mixing

if TYPE_CHECKING:
    from torch import Tensor

    from cnn.transforms.draws import Draws

Alpha = Annotated[float, Field(ge=0.05, le=100)]


class Mixup(Mixing):
    """x' = λ x_i + (1 - λ) x_j and likewise the labels, λ ~ Beta(alpha, alpha) (Zhang et al., ICLR 2018).

    j is another place of a random order of the batch; λ is drawn for every sample. The training accuracy counts the
    label with the larger share.
    """

    type: Literal["mixup"] = "mixup"
    alpha: Alpha = 0.2
    """Both parameters of the beta distribution: small values leave most samples nearly as they are, 1 is uniform."""
    p: Probability = 1.0
    """Probability that a batch is mixed."""

    def mix(self, images: Tensor, targets: Tensor, chosen: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        from cnn.transforms.mixing import mixup

        share = draws.beta(self.alpha).masked_fill(~chosen, 1.0)
        return mixup(images, targets, draws.permutation(), share)


class CutMix(Mixing):
    """A rectangle of x_j in x_i, with 1 - λ of the area, λ ~ Beta(alpha, alpha) (Yun et al., ICCV 2019).

    Its middle is uniform in the image and what reaches beyond is cut off; labels are mixed by the area that remains.
    Partner, λ and place are drawn for every sample.
    """

    type: Literal["cutmix"] = "cutmix"
    alpha: Alpha = 1.0
    """Both parameters of the beta distribution; 1 is uniform."""
    p: Probability = 1.0
    """Probability that a batch is mixed."""

    def mix(self, images: Tensor, targets: Tensor, chosen: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        from cnn.transforms.mixing import cutmix

        share = draws.beta(self.alpha).masked_fill(~chosen, 1.0)
        return cutmix(images, targets, draws.permutation(), share, (draws.uniform(), draws.uniform()))
