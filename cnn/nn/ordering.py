"""The order in which a network computes, where another one than that of its layers gives the same."""

from __future__ import annotations

from torch import nn

MONOTONE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid)
"""Activations that never fall: of the largest of some values they make the largest of their activations."""


def put_maxima_first(network: nn.Module) -> None:
    """Let max-pooling precede the monotone activations before it, which then act on fewer values; names stay.

    The function is the same, and so is its gradient, ties included: where values of a window differ and their largest
    activations do not, the activation is flat, and the gradient is 0 wherever it goes. What `f` rounds to the same
    value without being flat there is the exception: then the gradient goes to the largest of these, not to the first.
    """
    for block in network.modules():
        if isinstance(block, nn.Sequential):
            _reorder(block)


def _reorder(block: nn.Sequential) -> None:
    ordered: list[tuple[str, nn.Module]] = []
    for name, module in block.named_children():
        place = len(ordered)
        if isinstance(module, nn.MaxPool2d):
            while place and isinstance(ordered[place - 1][1], MONOTONE):
                place -= 1
        ordered.insert(place, (name, module))
    for name, module in ordered:
        delattr(block, name)
        block.add_module(name, module)
