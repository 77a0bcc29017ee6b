"""Keeps values that are not finite away from the weights, without waiting for the device in every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class FiniteGate:
    """Closes at the first step whose loss or gradient is not finite, and stays closed.

    The decision is taken on the device. Once the gate is closed, `shield` keeps every later step from the weights, so
    that the host may ask seldom, and late, whether all is well.
    """

    def __init__(self, num_parameters: int, device: torch.device) -> None:
        self._closed = torch.zeros((), dtype=torch.bool, device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._bad = torch.zeros(num_parameters, dtype=torch.bool, device=device)

    def inspect(self, step: int, loss: Tensor, norm: Tensor, norms: Tensor) -> None:
        """Take in the loss of a step, the norm of its gradient, and that of each parameter's, (num_parameters,)."""
        if self._closed.device.type == "cpu" and math.isfinite(loss.item() + norm.item()):
            return  # all of it is finite, and the host knows without waiting
        bad = ~norms.isfinite()
        first = (bad.any() | ~loss.isfinite()) & ~self._closed
        self._bad |= bad & first
        self._step += step * first
        self._closed |= first

    @property
    def alive(self) -> Tensor:
        """1, or 0 once the gate is closed, on the device and in float64."""
        return 1 - self._closed.double()

    def shield(self, optimizer: torch.optim.Optimizer) -> None:
        """When the gate is closed, make the optimizer's next step leave the weights as they are."""
        # The fused optimizers of torch and those of this package change no weight where this is 1.
        optimizer.found_inf = None if self._is_seen_open else self._closed.float()  # type: ignore[attr-defined]

    def keep(self, good: Sequence[Tensor], current: Sequence[Tensor]) -> None:
        """Copy `current` to `good`, unless the gate is closed."""
        if self._is_seen_open:
            for target, source in zip(good, current, strict=True):
                target.copy_(source)
            return
        for dtype in {tensor.dtype for tensor in good}:  # all at once: each operation costs a GPU's host some time
            targets, sources = ([tensor for tensor in part if tensor.dtype == dtype] for part in (good, current))
            old, new = (torch.cat([tensor.reshape(-1) for tensor in part]) for part in (targets, sources))
            parts = torch.split(torch.where(self._closed, old, new), [target.numel() for target in targets])
            torch._foreach_copy_(targets, [part.view(t.shape) for part, t in zip(parts, targets, strict=True)])

    @property
    def _is_seen_open(self) -> bool:
        """Whether the host can tell without waiting that there is nothing to keep away: on the CPU."""
        return self._closed.device.type == "cpu" and not self._closed.item()

    def tripped(self) -> tuple[int, list[int]] | None:
        """The step that closed the gate and the parameters whose gradients were not finite. Waits for the device."""
        if not self._closed.item():
            return None
        return int(self._step.item()), self._bad.nonzero().flatten().tolist()
