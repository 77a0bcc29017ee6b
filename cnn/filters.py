"""What the first layer looks for: a picture of its filters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cnn.sheets import gallery

MAX_FILTERS = 64
MIDDLE, REACH = 128, 127


def filters_picture(weights: Mapping[str, Tensor]) -> bytes | None:
    """A PNG of the first layer's filters, at most `MAX_FILTERS`; None where the first layer is no convolution.

    Each filter is scaled by itself: grey is 0, black or white its largest weight in size. Filters over three channels
    have their colours; of other numbers of channels than one the first is shown. With a parametrization such as weight
    norm the filters themselves are not among the weights, and there is no picture.

    Args:
        weights: of the whole network, in the order of its layers, those of the input normalization first.
    """
    first = next((tensor for name, tensor in weights.items() if not name.startswith("normalization.")), None)
    if first is None or first.ndim != 4:
        return None
    filters = first[:MAX_FILTERS].detach().cpu().float()
    largest = filters.abs().amax(dim=(1, 2, 3), keepdim=True)
    return gallery((MIDDLE + REACH * (filters / largest).nan_to_num(0)).numpy())
