"""What torch says that a module costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cnn.base import Shape


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def torch_macs(module: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates as torch counts them (it counts two operations for each)."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  importing it costs a second

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(inputs)
    return int(counter.get_total_flops()) // 2


def kept_bytes(module: nn.Module, shape: Shape) -> int:
    """Memory that autograd keeps for the backward pass per sample of `shape`: what two samples more add."""
    return (_saved_bytes(module, torch.zeros(4, *shape)) - _saved_bytes(module, torch.zeros(2, *shape))) // 2


def _saved_bytes(module: nn.Module, inputs: Tensor) -> int:
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        module.train()(inputs)
    memory = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in saved}
    return sum(memory.values())
