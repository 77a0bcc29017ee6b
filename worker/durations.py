"""How long a job will take, learned from those that the same kind of worker has finished.

The model is seconds = a + b · steps + c · multiply-accumulates + d · bytes of activations, with a, b, c, d ≥ 0. It is
fitted to relative errors, with less weight for runs that it explains badly. The interval holds 90 % of the relative
errors that each run has under the model of the others. Without a history it comes from rough constants, and is wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from statistics import median

from cnn.costs import Work

COVERAGE = 0.9
UNLEARNED_FACTOR = 8.0
"""Half the width of the interval without a history: from an eighth to eight times."""
ENOUGH = 10
"""Runs after which the interval comes from their errors alone."""
LARGE_ERROR = 0.3
ROUNDS = 5
SWEEPS = 200
TOLERANCE = 1e-4

Coefficients = Sequence[float]
UNLEARNED: Coefficients = (4.0, 2e-3, 1.5e-10, 2e-10)
"""Of one CPU core: seconds, and seconds for a step, a multiply-accumulate and a byte."""
PRIOR_WEIGHT = 1e-3
"""Of the rough constants, for a machine as fast as the history says, beside a run: they decide what it leaves open."""


@dataclass(frozen=True, slots=True)
class Past:
    """A job that was finished without interruption."""

    work: Work
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds from the claim to the end, with the interval in which nine of ten runs end."""

    seconds: float
    low_seconds: float
    high_seconds: float


@dataclass(frozen=True, slots=True)
class DurationModel:
    """The four constants, and the factor by which the interval reaches to both sides."""

    coefficients: Coefficients
    factor: float
    num_runs: int

    def estimate(self, work: Work, shortest: Work | None = None) -> Estimate:
        """For a run; `shortest` is what it does when early stopping ends it as soon as it can."""
        seconds = _predict(self.coefficients, _features(work))
        least = _predict(self.coefficients, _features(shortest)) if shortest else seconds
        return Estimate(seconds, least / self.factor, seconds * self.factor)


@lru_cache(maxsize=64)
def learn(runs: tuple[Past, ...]) -> DurationModel:
    """The model of these runs, and of the rough constants without any."""
    if not runs:
        return DurationModel(UNLEARNED, UNLEARNED_FACTOR, 0)
    fit = _Fit([_features(run.work) for run in runs], [max(run.seconds, 0.01) for run in runs])
    return DurationModel(fit.coefficients, math.exp(_width(fit.errors())), len(runs))


def _features(work: Work) -> tuple[float, ...]:
    return (1.0, *map(float, astuple(work)))


def _predict(coefficients: Coefficients, row: Sequence[float]) -> float:
    return sum(factor * value for factor, value in zip(coefficients, row, strict=True))


def _width(errors: Sequence[float]) -> float:
    """The quantile of the errors that covers the next run with `COVERAGE` (conformal prediction), wider for few."""
    number = len(errors)
    rank = min(number, math.ceil((number + 1) * COVERAGE))
    learned = sorted(errors)[rank - 1]
    share = min(1.0, number / ENOUGH)
    return max(learned, share * learned + (1 - share) * math.log(UNLEARNED_FACTOR))


class _Fit:
    """Least squares of relative errors with no coefficient below zero, and with less weight for outliers (Huber)."""

    def __init__(self, rows: Sequence[Sequence[float]], times: Sequence[float]) -> None:
        speed = median(seconds / _predict(UNLEARNED, row) for row, seconds in zip(rows, times, strict=True))
        self._rough = [speed * constant for constant in UNLEARNED]
        self._rows = [
            [value * constant / seconds for value, constant in zip(row, self._rough, strict=True)]
            for row, seconds in zip(rows, times, strict=True)
        ]
        self._weights = [1.0] * len(rows)
        self._solution = [1.0] * len(UNLEARNED)
        for _ in range(ROUNDS):
            self._solution = _minimize(self._gram(), self._right(), self._solution)
            relative = (abs(_predict(self._solution, row) - 1) for row in self._rows)
            self._weights = [min(1.0, LARGE_ERROR / max(1e-9, error)) for error in relative]

    @property
    def coefficients(self) -> Coefficients:
        return tuple(factor * constant for factor, constant in zip(self._solution, self._rough, strict=True))

    def errors(self) -> list[float]:
        """|log(seconds / prediction)| of each run, predicted from the others."""
        gram, right = self._gram(), self._right()
        size = range(len(right))
        errors = []
        for weight, row in zip(self._weights, self._rows, strict=True):
            without = [[gram[i][j] - weight * row[i] * row[j] for j in size] for i in size]
            rest = [right[i] - weight * row[i] for i in size]
            errors.append(abs(math.log(_predict(_minimize(without, rest, self._solution), row))))
        return errors

    def _gram(self) -> list[list[float]]:
        size, pairs = range(len(UNLEARNED)), list(zip(self._weights, self._rows, strict=True))
        prior = [[PRIOR_WEIGHT if i == j else 0.0 for j in size] for i in size]
        return [[prior[i][j] + sum(weight * row[i] * row[j] for weight, row in pairs) for j in size] for i in size]

    def _right(self) -> list[float]:
        pairs = list(zip(self._weights, self._rows, strict=True))
        return [PRIOR_WEIGHT + sum(weight * row[i] for weight, row in pairs) for i in range(len(UNLEARNED))]


def _minimize(gram: Sequence[Sequence[float]], right: Sequence[float], start: Sequence[float]) -> list[float]:
    """x ≥ 0 that minimizes x · gram · x / 2 - right · x, by coordinate descent."""
    solution = list(start)
    for _ in range(SWEEPS):
        moved = 0.0
        for i, row in enumerate(gram):
            value = max(0.0, solution[i] + (right[i] - _predict(row, solution)) / row[i])
            moved = max(moved, abs(value - solution[i]))
            solution[i] = value
        if moved < TOLERANCE:
            break
    return solution
