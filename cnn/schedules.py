"""Learning-rate schedules. To add one: write its class, then name it in `Schedule` at the bottom.

A schedule has no state: the learning rate of a step is a function of its number.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from cnn.base import Spec


class Constant(Spec):
    """The optimizer's `lr` in every step."""

    type: Literal["constant"] = "constant"

    def lr(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        """Learning rate of update `step` = 1 … num_steps, where the optimizer's is `lr`."""
        return lr


class OneCycle(Spec):
    """Linearly up, then linearly down, once (after Smith & Topin, 2018; momentum is not cycled).

    The first step has lr / div_factor, step w = max(1, round(pct_start · num_steps)) has lr, the last one has
    lr / final_div_factor. Where w = 1 there is no way up, where w = num_steps no way down.
    """

    type: Literal["one_cycle"] = "one_cycle"
    pct_start: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the steps that the way up takes."""
    div_factor: Annotated[float, Field(ge=1)] = 25.0
    """The optimizer's `lr`, the peak, over the learning rate of the first step."""
    final_div_factor: Annotated[float, Field(ge=1)] = 1e4
    """The optimizer's `lr`, the peak, over the learning rate of the last step."""

    def lr(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        """Learning rate of update `step` = 1 … num_steps, where the optimizer's is `lr`."""
        peak = max(1, round(self.pct_start * num_steps))
        if step < peak:
            start = lr / self.div_factor
            return start + (lr - start) * (step - 1) / (peak - 1)
        if step == peak:
            return lr
        end = lr / self.final_div_factor
        return end + (lr - end) * (num_steps - step) / (num_steps - peak)


Schedule = TypeAliasType("Schedule", Annotated[Constant | OneCycle, Field(discriminator="type")])
