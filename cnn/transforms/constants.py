"""Constants on a device. To copy one there is to wait for all that a GPU was told before, so each is copied once."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def constant(
    values: tuple[float, ...] | tuple[tuple[float, ...], ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A tensor of these values, for all who ask for it: nobody may write to it."""
    return torch.tensor(values, dtype=dtype, device=device)
