"""Initial weights other than torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

Init = Literal["kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal"]

METHODS: dict[Init, Callable[[Tensor], Tensor]] = {
    "kaiming_normal": nn.init.kaiming_normal_,
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
}


def initialize(layer: nn.Module, init: Init) -> None:
    """Draw the weights of a convolution or dense layer anew from torch's global generator, and set its biases to 0."""
    for name, parameter in layer.named_parameters(recurse=False):
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            METHODS[init](parameter)
