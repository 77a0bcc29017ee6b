"""What a job delivers when nobody disturbs it: its weights and its deterministic metrics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cnn.events import Artifact, Metrics, Result
from cnn.native import library
from cnn.spec import TrainingSpec
from cnn.training import train
from worker.jobs import WEIGHTS

Row = tuple[str, int, int, float | None]
"""Key, epoch, step and value of a metric; None where it is not finite."""


@dataclass(frozen=True)
class Outcome:
    """What must come out whatever was killed on the way."""

    result: Result
    sha256: str
    """Of the delivered weights."""
    rows: frozenset[Row]


def undisturbed(spec: TrainingSpec, folder: Path) -> Outcome:
    """Train here as a trainer does, from the first step to the last, with as many threads as this process has set."""
    library.use(library.find())
    result, sha256, rows = None, "", set()
    for event in train(spec, spec.dataset.load(folder), artifacts=folder):
        match event:
            case Metrics():
                rows |= {(key, event.epoch, event.step, _finite(value)) for key, value in event.values.items()}
            case Artifact(name=name, path=path) if name == WEIGHTS:
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            case Result():
                result = event
    assert result is not None
    return Outcome(result, sha256, frozenset(rows))


def undisturbed_mix(mix: Mapping[str, TrainingSpec], folder: Path) -> dict[str, Outcome]:
    """The outcome of each spec of a mix."""
    outcomes = {}
    for name, spec in mix.items():
        place = folder / name
        place.mkdir(parents=True)
        outcomes[name] = undisturbed(spec, place)
    return outcomes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
