"""What the weights of a network have become, in three numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

NEAR_ZERO = 1e-3


@torch.no_grad()
def weight_statistics(weights: list[Tensor]) -> dict[str, float]:
    """The norm of all of them together, and the shares that are 0 or nearly so; empty where there are none."""
    if not weights:
        return {}
    number = sum(weight.numel() for weight in weights)
    zero = torch.stack([(weight == 0).sum() for weight in weights]).sum()
    near_zero = torch.stack([(weight.abs() < NEAR_ZERO).sum() for weight in weights]).sum()
    return {
        "weight_norm": float(vector_norm(torch.stack(torch._foreach_norm(weights)).double())),
        "zero_share": int(zero) / number,
        "near_zero_share": int(near_zero) / number,
    }
