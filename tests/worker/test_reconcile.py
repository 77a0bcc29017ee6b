from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from tests.integration.processes import wait_until
from worker.jobs import Job, JobStatus
from worker.queue import make_celery
from worker.reconcile import Reconciler
from worker.settings import Settings
from worker.store import attempts, events, intents, jobs
from worker.store.database import Database, DatabaseUnavailable


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Observer:
    """A reconciler on a clock that the test moves."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.clock = Clock()
        self._reconciler = Reconciler(database, make_celery(settings), settings, clock=self.clock)

    def look(self, *, after: float) -> None:
        self.clock.now += after
        self._reconciler.tick()

    def watch(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.look(after=1.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=f"redis+socket://{tmp_path}/nobody.sock")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url())
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def running(database: Database, spec: TrainingSpec) -> Job:
    with database.write() as c:
        jobs.create(c, spec=spec, name=None)
        job = attempts.claim(c, worker_id="w-lost", device="cpu")
    assert job is not None
    return job


def status(database: Database, job: Job) -> JobStatus:
    with database.read() as c:
        seen = jobs.get(c, job.id)
    assert seen is not None
    return seen.status


def beat(database: Database, job: Job) -> None:
    with database.write() as c:
        attempts.heartbeat(c, job.id, job.token)


def test_a_job_is_taken_back_after_ten_seconds_of_silence(database: Database, settings: Settings, running: Job) -> None:
    observer = Observer(database, settings)
    observer.watch(10)
    assert status(database, running) == JobStatus.RUNNING
    observer.watch(1)
    assert status(database, running) == JobStatus.QUEUED
    with database.read() as c:
        last = events.after(c, running.id, 0, 99)[-1]
    assert (last.type, last.data["from"], last.data["to"]) == ("job.status", "running", "queued")
    assert last.data["reason"] == "worker_lost"


def test_a_beating_job_is_left_alone(database: Database, settings: Settings, running: Job) -> None:
    observer = Observer(database, settings)
    for _ in range(10):
        observer.watch(9)
        beat(database, running)
    assert status(database, running) == JobStatus.RUNNING


def test_an_observer_that_was_frozen_begins_anew(database: Database, settings: Settings, running: Job) -> None:
    observer = Observer(database, settings)
    observer.watch(8)
    observer.look(after=3600.0)
    assert status(database, running) == JobStatus.RUNNING
    observer.watch(9)
    assert status(database, running) == JobStatus.RUNNING
    observer.watch(1)
    assert status(database, running) == JobStatus.QUEUED


def test_reads_that_are_too_far_apart_never_expire_a_job(database: Database, settings: Settings, running: Job) -> None:
    observer = Observer(database, settings)
    for _ in range(50):
        observer.look(after=2.5)
    assert status(database, running) == JobStatus.RUNNING


def test_a_time_when_nobody_could_write_does_not_count(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, running: Job
) -> None:
    monkeypatch.setattr("worker.store.database.BUSY_SECONDS", 0.1)
    database = Database(settings.resolved_database_url())
    observer = Observer(database, settings)
    observer.watch(8)
    other = sqlite3.connect(settings.data_dir / "epochd.db", isolation_level=None)
    with closing(other):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            observer.look(after=1.0)
        other.execute("ROLLBACK")
    observer.look(after=2.0)
    observer.watch(8)
    assert status(database, running) == JobStatus.RUNNING
    observer.watch(3)
    assert status(database, running) == JobStatus.QUEUED
    database.close()


def test_it_looks_often_enough_for_a_short_lease(database: Database, settings: Settings, running: Job) -> None:
    short = settings.model_copy(update={"heartbeat_seconds": 0.2, "lease_seconds": 0.6})
    reconciler = Reconciler(database, make_celery(short), short)
    reconciler.start()
    wait_until(lambda: status(database, running) == JobStatus.QUEUED)
    reconciler.stop()


def test_a_new_claim_is_a_new_sighting(database: Database, settings: Settings, running: Job) -> None:
    observer = Observer(database, settings)
    observer.watch(8)
    with database.write() as c:
        attempts.requeue(c, running.id, running.token, reason="worker_drained")
        assert attempts.claim(c, worker_id="w-new", device="cpu") is not None
    observer.watch(8)
    assert status(database, running) == JobStatus.RUNNING


def test_three_lost_workers_fail_a_job(database: Database, settings: Settings, running: Job) -> None:
    observer = Observer(database, settings)
    for _ in range(2):
        observer.watch(11)
        with database.write() as c:
            assert attempts.claim(c, worker_id="w-lost", device="cpu") is not None
    observer.watch(12)
    assert status(database, running) == JobStatus.FAILED


def test_a_silent_job_that_should_be_cancelled_is_cancelled(
    database: Database, settings: Settings, running: Job
) -> None:
    with database.write() as c:
        intents.request_cancel(c, running.id)
    Observer(database, settings).watch(12)
    assert status(database, running) == JobStatus.CANCELLED


def test_two_observers_take_a_job_back_once(database: Database, settings: Settings, running: Job) -> None:
    observers = [Observer(database, settings), Observer(database, settings)]
    for _ in range(12):
        for observer in observers:
            observer.look(after=1.0)
    with database.read() as c:
        reasons = [event.data["reason"] for event in events.after(c, running.id, 0, 99, ["job.status"])]
    assert reasons == ["created", "claimed", "worker_lost"]
