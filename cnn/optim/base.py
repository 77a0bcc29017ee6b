"""What the optimizers of this package share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Optimizer(torch.optim.Optimizer):
    """One whose every parameter has a gradient in every step."""

    found_inf: Tensor | None = None
    """Where it is 1 the step leaves the weights as they are, as in torch's fused optimizers."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Mark `step` as wrapped already: torch's hooks and profiler records, unused here, are a tenth of its time."""
        super().__init_subclass__(**kwargs)
        cls.step.hooked = True  # type: ignore[attr-defined]
