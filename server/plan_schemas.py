"""What the API answers about a spec that was not submitted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import JsonValue

from server.schemas import Answer


class PlannedLayer(Answer):
    """One layer for one sample."""

    name: str
    type: str
    pointer: str | None
    """JSON Pointer to the layer in the body; null where the network goes by a name."""
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    num_parameters: int
    macs: int
    """Multiply-accumulates of a forward pass."""
    activation_bytes: int
    """What is kept until the backward pass."""


class PlannedTotals(Answer):
    """Of the network for one sample, and of the run."""

    num_parameters: int
    macs: int
    activation_bytes: int
    weight_bytes: int
    num_train: int
    num_val: int
    steps_per_epoch: int
    num_steps: int
    """Of all epochs: early stopping may need fewer."""


class PlannedMemory(Answer):
    """Predicted peak of the trainer's private memory on a CPU, in bytes, and what takes it."""

    total: int
    base: int
    dataset: int
    weights: int
    activations: int
    evaluation: int


class PlannedDuration(Answer):
    """From the claim to the end, on a worker with this device and so many threads for each job."""

    seconds: float
    low_seconds: float
    """Nine of ten runs take between this and `high_seconds`."""
    high_seconds: float
    device: str
    threads: int
    learned_from: int
    """Finished jobs on that kind of worker; without any the interval is wide."""


class PlannedQueue(Answer):
    estimated_start_at: datetime | None
    """Null when no worker is there that could train it."""


class PlanWarning(Answer):
    """Something that is asked for and hardly meant. The spec is valid all the same."""

    pointer: str
    """JSON Pointer into the body."""
    code: str
    message: str
    source: str
    """Where the reason is written."""
    fix: list[dict[str, JsonValue]]
    """JSON Patch (RFC 6902) of the body; empty where more than one repair would do."""


class Plan(Answer):
    """What a spec would cost, and what may be wrong with it; nothing is stored."""

    spec: dict[str, Any]
    """The resolved `TrainingSpec`: every default filled in."""
    spec_digest: str
    layers: tuple[PlannedLayer, ...]
    totals: PlannedTotals
    memory: PlannedMemory
    duration: PlannedDuration
    queue: PlannedQueue
    warnings: tuple[PlanWarning, ...]
