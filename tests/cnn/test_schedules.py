"""Every schedule against numbers worked out by hand."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from cnn.schedules import Constant, OneCycle, ReduceOnPlateau, Schedule
from tests.cnn.plain import small_spec

MEMBERS = get_args(get_args(Schedule.__value__)[0])

# Fields, steps of an epoch, and the learning rate of each step, where the optimizer's is 1.
BY_HAND: dict[str, tuple[dict[str, Any], int, list[float]]] = {
    "constant": ({}, 2, [1, 1, 1, 1]),
    "step": ({"step_size": 2, "gamma": 0.5}, 2, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]),
    "multi_step": ({"milestones": [1, 3], "gamma": 0.1}, 2, [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
    "exponential": ({"gamma": 0.25}, 2, [1, 0.5, 0.25, 0.125]),
    # cos of 0°, 60°, 120° in three steps: 1, 1/2, -1/2.
    "cosine": ({"eta_min": 0.2}, 3, [1, 0.8, 0.4]),
    "one_cycle": (
        {"pct_start": 0.4, "div_factor": 4, "final_div_factor": 10},
        5,
        [0.25, 0.5, 0.75, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1],
    ),
    "reduce_on_plateau": ({}, 2, [1, 1, 1, 1]),
}


def schedule_of(type: str, **fields: Any) -> Any:
    return TypeAdapter(Schedule).validate_json(json.dumps({"type": type, **fields}))


@pytest.mark.parametrize("member", MEMBERS)
def test_learning_rates_by_hand(member: type[Constant]) -> None:
    name = member.model_fields["type"].default
    fields, steps_per_epoch, expected = BY_HAND[name]
    schedule = schedule_of(name, **fields)
    rates = [schedule.lr(k, len(expected), steps_per_epoch, 1.0) for k in range(1, len(expected) + 1)]
    assert rates == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("member", MEMBERS)
def test_warmup_multiplies_the_first_steps(member: type[Constant]) -> None:
    name = member.model_fields["type"].default
    fields, steps_per_epoch, expected = BY_HAND[name]
    warmup_epochs = 1.5 if steps_per_epoch == 2 else 0.8  # 3, 2 or 4 steps
    warmup_steps = {2: 3, 3: 2, 5: 4}[steps_per_epoch]
    schedule = schedule_of(name, warmup_epochs=warmup_epochs, **fields)
    rates = [schedule.lr(k, len(expected), steps_per_epoch, 1.0) for k in range(1, len(expected) + 1)]
    warmed = [rate * min(1, k / warmup_steps) for k, rate in enumerate(expected, start=1)]
    assert rates == pytest.approx(warmed, abs=1e-12)
    assert rates[0] == pytest.approx(expected[0] / warmup_steps, abs=1e-12)


@pytest.mark.parametrize(
    ("pct_start", "expected"), [(0.0, [2.0, 1.5, 1.0]), (1.0, [0.5, 1.25, 2.0]), (0.3, [2.0, 1.5, 1.0])]
)
def test_one_cycle_with_one_way_only(pct_start: float, expected: list[float]) -> None:
    schedule = OneCycle(pct_start=pct_start, div_factor=4, final_div_factor=2)
    assert [schedule.lr(step, 3, 3, 2.0) for step in (1, 2, 3)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", MEMBERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 1000])
def test_every_step_has_a_positive_rate_of_at_most_the_optimizers(schedule: type[Constant], num_steps: int) -> None:
    rates = [schedule().lr(step, num_steps, num_steps, 0.5) for step in range(1, num_steps + 1)]
    assert all(0 < rate <= 0.5 for rate in rates)
    assert max(rates) == 0.5


@pytest.mark.parametrize("member", MEMBERS)
def test_a_schedule_round_trips_and_documents_its_fields(member: type[Constant]) -> None:
    spec = small_spec(schedule={"type": member.model_fields["type"].default})
    assert spec.schedule == member()
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    assert member.__doc__
    assert all(field.description for name, field in member.model_fields.items() if name != "type")


def test_a_plateau_reduces_and_counts_anew() -> None:
    plateau = ReduceOnPlateau(factor=0.5, patience=2, min_delta=0.1, min_lr=0.3).build()
    rates = []
    for loss in (1.0, 0.95, 0.8, 0.75, float("nan"), 0.75, 0.1, 0.1, 0.1, 0.1, 0.1):
        plateau.update(loss)
        rates.append(plateau.reduce(1.0))
    # Better by more than 0.1 in epochs 1, 3 and 7; two without in epochs 5, 9 and 11. 0.125 lies below min_lr.
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]
    assert plateau.reduce(0.2) == 0.2  # of a warm-up


def test_a_plateau_of_accuracies_looks_upwards() -> None:
    plateau = ReduceOnPlateau(monitor="val_accuracy", patience=1).build()
    plateau.update(0.5)
    plateau.update(0.6)
    assert plateau.reduce(1.0) == 1.0
    plateau.update(0.55)
    assert plateau.reduce(1.0) == pytest.approx(0.1)


def test_the_memory_of_a_plateau_survives() -> None:
    losses = [1.0, 2.0, 0.5, 0.6, 0.7, 0.4, 0.5, 0.5]
    for cut in range(len(losses)):
        one, other = (ReduceOnPlateau(patience=2).build() for _ in range(2))
        for loss in losses[:cut]:
            one.update(loss)
        other.recall(json.loads(json.dumps(one.memory())))
        for loss in losses[cut:]:
            one.update(loss)
            other.update(loss)
            assert one.reduce(1.0) == other.reduce(1.0)


@pytest.mark.parametrize(
    ("parts", "pointer"),
    [
        ({"schedule": {"type": "multi_step", "milestones": [3, 5, 5]}}, "/2"),
        ({"schedule": {"type": "cosine", "eta_min": 0.5}, "optimizer": {"type": "sgd", "lr": 0.1}}, "/optimizer/lr"),
        ({"schedule": {"type": "constant", "warmup_epochs": 5.5}}, "/schedule/warmup_epochs"),
        ({"schedule": {"type": "reduce_on_plateau"}, "split": {"val_fraction": 0.0}}, "/schedule/monitor"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(parts: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ValidationError) as caught:
        small_spec(**parts)
    assert caught.value.errors()[0]["ctx"]["pointer"] == pointer
