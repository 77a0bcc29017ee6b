"""Residual blocks."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Sequential):
    """branch(x) + shortcut(x). The layers of the branch are its own children, those of the shortcut of `shortcut`."""

    def __init__(self, branch: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        for name, module in branch.named_children():
            self.add_module(name, module)
        self.add_module("shortcut", shortcut)

    def forward(self, input: Tensor) -> Tensor:
        *branch, shortcut = self.children()
        outputs = input
        for module in branch:
            outputs = module(outputs)
        added: Tensor = shortcut(input)
        return outputs + added
