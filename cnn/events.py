"""What a training run tells while it goes on, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Phase:
    """What the run does from now on."""

    phase: Literal["preparing_data", "training_gan", "training", "evaluating", "exporting"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run is: `step` of `num_steps` optimizer updates, in `epoch` of `epochs`; both count from 1."""

    epoch: int
    step: int
    epochs: int
    num_steps: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """The values of one epoch: `values` follow from spec, data and seed; `timings` are what the clock said.

    A resumed run first tells again the metrics of the epochs before its checkpoint.
    """

    epoch: int
    step: int
    values: Mapping[str, float]
    timings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The folder `path` holds the complete state after `step`."""

    epoch: int
    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished file for users."""

    name: str
    path: Path
    media_type: str
    step: int


@dataclass(frozen=True, slots=True)
class Warning_:  # noqa: N801  (Warning is a builtin)
    """Something that the user should know and that does not stop the run."""

    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """The last event of a complete run: the test split, evaluated on the delivered weights, those after `step`."""

    test_loss: float
    test_accuracy: float
    weights: Literal["best", "last"]
    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event of a run that was asked to stop; its checkpoint, if it writes any, came just before."""

    epoch: int
    step: int


NO_MODEL = "there is no model.onnx"
"""How the warning begins that goes on with why the network was not exported."""

Event = Phase | Progress | Metrics | Checkpoint | Artifact | Warning_ | Result | Stopped


def describe(event: Event) -> str | None:
    """One line for people about the events that have news: epochs, warnings and the result."""
    match event:
        case Metrics():
            values = "  ".join(f"{name} {value:.5g}" for name, value in event.values.items())
            return f"epoch {event.epoch}  step {event.step}  {values}  {event.timings['seconds']:.1f} s"
        case Warning_():
            return f"warning: {event.message}"
        case Result():
            scores = f"test_loss {event.test_loss:.6f}  test_accuracy {event.test_accuracy}"
            return f"{scores}  {event.weights} weights, of epoch {event.epoch}, step {event.step}"
        case _:
            return None
