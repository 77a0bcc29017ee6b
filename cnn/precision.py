"""The number formats in which a step is computed: lower precision where it is safe, and the loss scale of float16.

Weights, statistics, losses, gradients and updates are float32 always. "bfloat16" and "float16" are of what convolutions
and dense layers compute, and of the activations between them: torch's autocast decides for each operation
(Micikevicius et al., Mixed Precision Training, ICLR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

FORMATS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST_SCALE = 2.0**16
LARGEST_SCALE = 2.0**24
"""A loss of 0 has no gradient that could overflow: its scale would grow until it is infinite itself."""
GROWTH_STEPS = 2000


def lowered(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Where a forward pass runs in what `training.precision` says."""
    kind = FORMATS.get(precision)
    return nullcontext() if kind is None else torch.autocast(device.type, kind)


class LossScale:
    """What the loss is multiplied by before the backward pass, so that small gradients are not 0 in float16.

    Halved, and the update left out, where a gradient overflows; doubled after 2000 steps without. All powers of two,
    so that no other bit of a gradient changes.
    """

    def __init__(self) -> None:
        self.value = FIRST_SCALE
        self.clean_steps = 0

    def overflowed(self, loss: Tensor, norm: Tensor) -> bool:
        """Whether the gradient of a step, of this norm, may be finite with a smaller scale. Waits for the device.

        Where the loss is not finite, or the scale is 1, the reason is another one.
        """
        loss_is_finite, norm_is_finite = torch.stack([loss, norm]).isfinite().tolist()
        if loss_is_finite and not norm_is_finite and self.value > 1:
            self.value /= 2
            self.clean_steps = 0
            return True
        self.clean_steps += 1
        if self.clean_steps == GROWTH_STEPS:
            self.value = min(2 * self.value, LARGEST_SCALE)
            self.clean_steps = 0
        return False

    def tensors(self) -> dict[str, Tensor]:
        """The state between two steps."""
        return {"value": torch.tensor(self.value), "clean_steps": torch.tensor(self.clean_steps)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave. Raises KeyError when a tensor is missing."""
        self.value = float(tensors["value"].item())
        self.clean_steps = int(tensors["clean_steps"].item())
