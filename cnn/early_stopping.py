"""Early stopping, and the record of the best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cnn.base import Spec

Monitor = Literal["val_loss", "val_accuracy", "train_loss", "train_accuracy"]


class EarlyStopping(Spec):
    """Stops when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    A loss improves downwards, an accuracy upwards. A value that is not a number is no improvement.
    """

    monitor: Monitor = "val_loss"
    """The series that must improve."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Epochs without improvement after which training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """A change counts as an improvement when it is larger than this."""
    restore_best_weights: bool = True
    """Deliver the weights of the best epoch of `monitor`; otherwise those of the last."""

    def build(self) -> Patience:
        return Patience(self)


def improves(monitor: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether `value` of the series `monitor` is better than `best` by more than `min_delta`."""
    if value != value:
        return False
    if best is None:
        return True
    return best - value > min_delta if monitor.endswith("loss") else value - best > min_delta


class Patience:
    """Counts epochs without improvement."""

    def __init__(self, spec: EarlyStopping) -> None:
        self.spec = spec
        self._best: float | None = None
        self._waited = 0

    @property
    def exhausted(self) -> bool:
        """Whether training should stop."""
        return self._waited >= self.spec.patience

    def update(self, value: float) -> None:
        """Take in the value of an epoch."""
        if improves(self.spec.monitor, value, self._best, self.spec.min_delta):
            self._best, self._waited = value, 0
        else:
            self._waited += 1

    def memory(self) -> dict[str, Any]:
        """What it must know to go on later, fit for JSON."""
        return {"best": self._best, "waited": self._waited}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
        self._best, self._waited = memory["best"], memory["waited"]
