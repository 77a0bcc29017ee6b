"""Durations learned from runs whose true constants are known."""

from __future__ import annotations

import math
import random

import pytest

from cnn.costs import Work
from worker.durations import UNLEARNED, UNLEARNED_FACTOR, Past, learn

TRUE = (2.5, 4e-3, 6e-11, 5e-10)


def seconds(work: Work) -> float:
    return TRUE[0] + TRUE[1] * work.steps + TRUE[2] * work.macs + TRUE[3] * work.bytes


def works(number: int, seed: int = 0) -> list[Work]:
    draws = random.Random(seed)
    return [
        Work(
            steps=round(10 ** draws.uniform(1, 4)),
            macs=round(10 ** draws.uniform(8, 12.5)),
            bytes=round(10 ** draws.uniform(7, 11.5)),
        )
        for _ in range(number)
    ]


def history(number: int, noise: float, seed: int = 0) -> tuple[Past, ...]:
    draws = random.Random(seed + 1)
    return tuple(Past(work, seconds(work) * math.exp(draws.gauss(0, noise))) for work in works(number, seed))


def test_without_history_the_interval_is_wide() -> None:
    model = learn(())
    estimate = model.estimate(Work(1000, 10**10, 10**9))
    expected = UNLEARNED[0] + 1000 * UNLEARNED[1] + 1e10 * UNLEARNED[2] + 1e9 * UNLEARNED[3]
    assert estimate.seconds == pytest.approx(expected)
    assert estimate.high_seconds == pytest.approx(UNLEARNED_FACTOR * expected)
    assert estimate.low_seconds == pytest.approx(expected / UNLEARNED_FACTOR)


def test_constants_are_found_from_runs_without_noise() -> None:
    model = learn(history(40, noise=0.0))
    for work in works(20, seed=9):
        assert model.estimate(work).seconds == pytest.approx(seconds(work), rel=0.05)
    assert model.num_runs == 40


def test_the_interval_covers_what_it_says() -> None:
    model = learn(history(60, noise=0.2))
    fresh = history(300, noise=0.2, seed=77)
    covered = 0
    for run in fresh:
        estimate = model.estimate(run.work)
        covered += estimate.low_seconds <= run.seconds <= estimate.high_seconds
    assert 0.82 <= covered / len(fresh) <= 0.98
    assert model.factor < 2


def test_a_few_runs_leave_the_interval_wide_and_more_narrow_it() -> None:
    factors = [learn(history(number, noise=0.05)).factor for number in (0, 2, 5, 30)]
    assert factors == sorted(factors, reverse=True)
    assert factors[1] > 4 > factors[3]


def test_one_run_that_was_held_up_does_not_spoil_the_others() -> None:
    runs = history(30, noise=0.02)
    spoiled = (*runs[1:], Past(runs[0].work, 50 * runs[0].seconds))
    for work in works(10, seed=5):
        assert learn(spoiled).estimate(work).seconds == pytest.approx(seconds(work), rel=0.3)


def test_early_stopping_lowers_only_the_low_end() -> None:
    model = learn(history(40, noise=0.1))
    whole, shortest = Work(1000, 10**12, 10**10), Work(100, 10**11, 10**9)
    free, stopped = model.estimate(whole), model.estimate(whole, shortest)
    assert (stopped.seconds, stopped.high_seconds) == (free.seconds, free.high_seconds)
    assert stopped.low_seconds < free.low_seconds / 3
