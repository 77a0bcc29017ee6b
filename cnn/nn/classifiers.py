"""What turns a classifier of torchvision into one for our images and our random numbers."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from cnn.nn.dropout import Dropout, MaskedDropout


class GreyToRGB(nn.Module):
    """A one-channel image three times, as red, green and blue."""

    def forward(self, images: Tensor) -> Tensor:
        return images.repeat(1, 3, 1, 1)


def replace_dropout(network: nn.Module) -> None:
    """Put our dropout modules, which draw from a generator of their own, in the places of torch's and torchvision's."""
    for name, module in network.named_children():
        if isinstance(module, nn.Dropout):
            setattr(network, name, Dropout(1 - module.p, "train"))
        elif isinstance(module, StochasticDepth):
            drops = MaskedDropout(1 - module.p, mask_dimensions=1) if module.p else nn.Identity()
            setattr(network, name, drops)
        else:
            replace_dropout(module)
