from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cnn.early_stopping import EarlyStopping
from cnn.spec import TrainingSpec
from worker.jobs import Best, Job
from worker.store import attempts, events, jobs, metrics
from worker.store.database import Database
from worker.store.metrics import Point

AT = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


def claimed(database: Database, spec: TrainingSpec) -> Job:
    with database.write() as c:
        jobs.create(c, spec=spec, name=None)
        job = attempts.claim(c, worker_id="w", device="cpu")
    assert job is not None
    return job


def epoch(number: int, val_loss: float | None, val_accuracy: float = 0.5) -> list[Point]:
    step = number * 10
    return [
        Point(key="val_loss", value=val_loss, epoch=number, step=step, at=AT),
        Point(key="val_accuracy", value=val_accuracy, epoch=number, step=step, at=AT),
        Point(key="seconds", value=1.5, epoch=number, step=step, at=AT, timing=True),
    ]


def write(database: Database, job: Job, rows: list[Point]) -> Job:
    with database.write() as c:
        metrics.append(c, job.id, job.token, rows)
        seen = jobs.get(c, job.id)
    assert seen is not None
    return seen


def test_points_come_back_as_they_were_and_in_order(database: Database, spec: TrainingSpec) -> None:
    job = claimed(database, spec)
    rows = epoch(1, 0.1 + 0.2) + epoch(2, None)
    write(database, job, rows[::-1])
    with database.read() as c:
        assert metrics.points(c, job.id, limit=10) == sorted(rows, key=lambda point: (point.step, point.key))
        assert metrics.keys(c, job.id) == ["seconds", "val_accuracy", "val_loss"]


def test_a_reader_can_choose_series_and_continue(database: Database, spec: TrainingSpec) -> None:
    job = claimed(database, spec)
    write(database, job, [point for number in range(1, 6) for point in epoch(number, 1.0 / number)])
    with database.read() as c:
        losses = metrics.points(c, job.id, keys=["val_loss"], from_step=20, limit=10)
        assert [point.step for point in losses] == [20, 30, 40, 50]
        everything = metrics.points(c, job.id, limit=100)
        walked: list[Point] = []
        while page := metrics.points(c, job.id, after=(walked[-1].step, walked[-1].key) if walked else None, limit=4):
            walked += page
        assert walked == everything


def test_latest_and_best_follow_the_points(database: Database, spec: TrainingSpec) -> None:
    job = claimed(database, spec)
    bests = []
    for number, loss in enumerate([0.5, 0.3, 0.4, None, 0.3], start=1):
        seen = write(database, job, epoch(number, loss, number / 10))
        assert seen.latest_metrics == {"val_loss": loss, "val_accuracy": number / 10}
        assert seen.best is not None
        bests.append((seen.best.value, seen.best.epoch))
    assert bests == [(0.5, 1), (0.3, 2), (0.3, 2), (0.3, 2), (0.3, 2)]


def test_an_accuracy_is_best_when_it_is_largest(database: Database, spec: TrainingSpec) -> None:
    stopping = spec.model_copy(update={"early_stopping": EarlyStopping(monitor="val_accuracy")})
    job = claimed(database, stopping)
    write(database, job, epoch(1, 0.1, 0.7))
    write(database, job, epoch(2, 0.1, 0.9))
    seen = write(database, job, epoch(3, 0.1, 0.8))
    assert seen.best == Best(metric="val_accuracy", value=0.9, epoch=2, step=20)


def test_without_a_validation_split_nothing_is_best(database: Database, spec: TrainingSpec) -> None:
    without = spec.model_copy(update={"split": spec.split.model_copy(update={"val_fraction": 0.0})})
    assert write(database, claimed(database, without), epoch(1, 0.1)).best is None


def test_a_new_attempt_drops_what_came_after_its_checkpoint(database: Database, spec: TrainingSpec) -> None:
    first = claimed(database, spec)
    write(database, first, [point for number in (1, 2, 3) for point in epoch(number, 1.0 / number)])
    with database.write() as c:
        attempts.checkpoint(c, first.id, first.token, epoch=2, step=20)
        attempts.requeue(c, first.id, first.token, reason="worker_drained")
        second = attempts.claim(c, worker_id="w", device="cpu")
        assert second is not None
        metrics.resume(c, second.id, second.token, step=20)
        assert {point.step for point in metrics.points(c, first.id, limit=99)} == {10, 20}
        seen = jobs.get(c, first.id)
        assert seen is not None
        assert (seen.best, seen.latest_metrics["val_loss"]) == (
            Best(metric="val_loss", value=0.5, epoch=2, step=20),
            0.5,
        )
        assert attempts.list_for(c, first.id)[1].first_step == 20


def test_points_that_are_told_again_replace_and_raise_no_event(database: Database, spec: TrainingSpec) -> None:
    job = claimed(database, spec)
    write(database, job, epoch(1, 0.5))
    write(database, job, epoch(1, 0.5) + epoch(2, 0.25))
    with database.read() as c:
        assert len(metrics.points(c, job.id, limit=99)) == 6
        told = [event.data for event in events.after(c, job.id, 0, 99, ["job.metric"])]
    assert [(data["epoch"], data["step"]) for data in told] == [(1, 10), (2, 20)]
    assert told[1]["values"] == {"val_loss": 0.25, "val_accuracy": 0.5}
    assert told[1]["timings"] == {"seconds": 1.5}


def test_the_same_key_and_step_is_one_point(database: Database, spec: TrainingSpec) -> None:
    job = claimed(database, spec)
    write(database, job, epoch(1, 0.5))
    write(database, job, epoch(1, 0.25))
    with database.read() as c:
        (point,) = metrics.points(c, job.id, keys=["val_loss"], limit=9)
    assert point.value == pytest.approx(0.25, abs=0)
