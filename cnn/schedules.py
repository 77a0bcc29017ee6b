"""Learning-rate schedules. To add one: write its class, then name it in `Schedule` at the bottom.

The learning rate of a step is a function of its number; only `reduce_on_plateau` remembers something beside it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from typing_extensions import TypeAliasType

from cnn.base import Items, Spec, spec_error
from cnn.early_stopping import Monitor, improves

Factor = Annotated[float, Field(gt=0, le=1)]


class _Schedule(Spec):
    warmup_epochs: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    """Epochs of linear warm-up (Goyal et al., 2017).

    With w = round(warmup_epochs · steps of an epoch), the schedule's learning rate of step k ≤ w is multiplied by k/w.
    """

    def lr(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        """Learning rate of update `step` = 1 … num_steps, where the optimizer's is `lr`."""
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        scheduled = self.after_warmup(step, num_steps, steps_per_epoch, lr)
        return scheduled * step / warmup_steps if step < warmup_steps else scheduled

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        """The same, without warm-up."""
        raise NotImplementedError

    @property
    def smallest_lr(self) -> float:
        """What the optimizer's `lr` must not be below."""
        return 0.0


class Constant(_Schedule):
    """The optimizer's `lr` in every step."""

    type: Literal["constant"] = "constant"

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        return lr


class Step(_Schedule):
    """Times `gamma` every `step_size` epochs: lr · γ^⌊(epoch - 1) / step_size⌋, where the first epoch is 1."""

    type: Literal["step"] = "step"
    step_size: Annotated[int, Field(ge=1)] = 10
    """Epochs between two reductions."""
    gamma: Factor = 0.1
    """γ."""

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        completed = (step - 1) // steps_per_epoch
        return float(lr * self.gamma ** (completed // self.step_size))


class MultiStep(_Schedule):
    """Times `gamma` after each of the epochs in `milestones`: lr · γ^(number of milestones that are complete)."""

    type: Literal["multi_step"] = "multi_step"
    milestones: Annotated[Items[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=1000)] = (10, 20)
    """Numbers of epochs, rising; those that the run does not reach do nothing."""
    gamma: Factor = 0.1
    """γ."""

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        for index, (one, next_one) in enumerate(pairwise(milestones)):
            if next_one <= one:
                raise spec_error(
                    "milestones_not_rising",
                    f"/{index + 1}",
                    f"milestones must rise, but {next_one} comes after {one}",
                    got=next_one,
                )
        return milestones

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        completed = (step - 1) // steps_per_epoch
        return float(lr * self.gamma ** bisect_right(self.milestones, completed))


class Exponential(_Schedule):
    """Times `gamma` after every epoch, step by step: lr · γ^((k - 1) / S) in step k, with S steps in an epoch."""

    type: Literal["exponential"] = "exponential"
    gamma: Factor = 0.9
    """γ: what one epoch leaves of the learning rate."""

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        return float(lr * self.gamma ** ((step - 1) / steps_per_epoch))


class Cosine(_Schedule):
    """Half a cosine from `lr` down to `eta_min`, step by step (Loshchilov & Hutter, ICLR 2017; without restarts).

    eta_min + (lr - eta_min) (1 + cos(π (k - 1) / K)) / 2 in step k of K.
    """

    type: Literal["cosine"] = "cosine"
    eta_min: Annotated[float, Field(ge=0)] = 0.0
    """The learning rate that it tends to, one step after the last."""

    @property
    def smallest_lr(self) -> float:
        return self.eta_min

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        return self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * (step - 1) / num_steps)) / 2


class OneCycle(_Schedule):
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

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        peak = max(1, round(self.pct_start * num_steps))
        if step < peak:
            start = lr / self.div_factor
            return start + (lr - start) * (step - 1) / (peak - 1)
        if step == peak:
            return lr
        end = lr / self.final_div_factor
        return end + (lr - end) * (num_steps - step) / (num_steps - peak)


class ReduceOnPlateau(_Schedule):
    """Times `factor` whenever `monitor` has not improved by more than `min_delta` for `patience` epochs.

    The count starts anew after a reduction. A loss improves downwards, an accuracy upwards; a value that is not a
    number is no improvement.
    """

    type: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    monitor: Monitor = "val_loss"
    """The series that must improve."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the learning rate is multiplied by."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Epochs without improvement after which the learning rate falls."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """A change counts as an improvement when it is larger than this."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """The learning rate does not fall below this."""

    @property
    def smallest_lr(self) -> float:
        return self.min_lr

    def after_warmup(self, step: int, num_steps: int, steps_per_epoch: int, lr: float) -> float:
        return lr

    def build(self) -> Plateau:
        return Plateau(self)


class Plateau:
    """Counts epochs without improvement, and reductions."""

    def __init__(self, spec: ReduceOnPlateau) -> None:
        self.spec = spec
        self._best: float | None = None
        self._waited = 0
        self._num_reductions = 0

    def update(self, value: float) -> None:
        """Take in the value of an epoch."""
        if improves(self.spec.monitor, value, self._best, self.spec.min_delta):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited == self.spec.patience:
            self._num_reductions, self._waited = self._num_reductions + 1, 0

    def reduce(self, lr: float) -> float:
        """What is left of a learning rate."""
        reduced = float(lr * self.spec.factor**self._num_reductions)
        return max(reduced, min(lr, self.spec.min_lr))  # warm-up may lie below min_lr

    def memory(self) -> dict[str, Any]:
        """What it must know to go on later, fit for JSON."""
        return {"best": self._best, "waited": self._waited, "num_reductions": self._num_reductions}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
        self._best, self._waited = memory["best"], memory["waited"]
        self._num_reductions = memory["num_reductions"]


Schedule = TypeAliasType(
    "Schedule",
    Annotated[
        Constant | Step | MultiStep | Exponential | Cosine | OneCycle | ReduceOnPlateau, Field(discriminator="type")
    ],
)


def check_schedule(schedule: Schedule, lr: float, epochs: int) -> None:
    """Raise spec_error when the schedule does not fit the optimizer's `lr` or the epochs of the run."""
    if schedule.smallest_lr > lr:
        raise spec_error(
            "lr_too_small",
            "/optimizer/lr",
            f"expected at least {schedule.smallest_lr}, where the schedule ends, got {lr}",
            got=lr,
        )
    if schedule.warmup_epochs > epochs:
        raise spec_error(
            "warmup_too_long",
            "/schedule/warmup_epochs",
            f"expected at most the {epochs} epochs of the run, got {schedule.warmup_epochs}",
            got=schedule.warmup_epochs,
        )
