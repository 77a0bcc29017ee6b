from __future__ import annotations

from typing import get_args

import pytest

from cnn.schedules import Constant, OneCycle, Schedule


def test_constant() -> None:
    assert [Constant().lr(step, 10, 5, 0.3) for step in (1, 5, 10)] == [0.3, 0.3, 0.3]


def test_one_cycle_goes_linearly_up_and_down() -> None:
    schedule = OneCycle(pct_start=0.4, div_factor=4, final_div_factor=10)
    expected = [0.25, 0.5, 0.75, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1]
    assert [schedule.lr(step, 10, 5, 1.0) for step in range(1, 11)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pct_start", "expected"), [(0.0, [2.0, 1.5, 1.0]), (1.0, [0.5, 1.25, 2.0]), (0.3, [2.0, 1.5, 1.0])]
)
def test_one_cycle_with_one_way_only(pct_start: float, expected: list[float]) -> None:
    schedule = OneCycle(pct_start=pct_start, div_factor=4, final_div_factor=2)
    assert [schedule.lr(step, 3, 3, 2.0) for step in (1, 2, 3)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", get_args(get_args(Schedule.__value__)[0]))
@pytest.mark.parametrize("num_steps", [1, 2, 3, 1000])
def test_every_step_has_a_positive_rate_of_at_most_the_optimizers(
    schedule: type[Constant | OneCycle], num_steps: int
) -> None:
    rates = [schedule().lr(step, num_steps, 1, 0.5) for step in range(1, num_steps + 1)]
    assert all(0 < rate <= 0.5 for rate in rates)
    assert max(rates) == 0.5
