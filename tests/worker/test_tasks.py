from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from tests.integration.processes import wait_until
from tests.worker.trainers import POLITE, SUCCEEDS, program
from worker.devices import Capacity
from worker.jobs import JobStatus
from worker.settings import Settings
from worker.starters import FreshStarter
from worker.store import attempts, jobs, workers
from worker.store.database import Database
from worker.tasks import Worker

WAITS = """
pathlib.Path(request["workdir"]).joinpath("begun").touch()
while not pathlib.Path(request["dataset_dir"], "go").exists():
    time.sleep(0.01)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, poll_seconds=0.05, drain_grace_seconds=2, retry_backoff_seconds=0)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url())
    database.migrate()
    yield database
    database.close()


def create(database: Database, spec: TrainingSpec, count: int) -> list[str]:
    with database.write() as c:
        return [jobs.create(c, spec=spec, name=None).id for _ in range(count)]


def statuses(database: Database) -> list[JobStatus]:
    with database.read() as c:
        return [job.status for job in jobs.page(c, limit=99)]


def presence(database: Database) -> workers.Worker:
    """What the only worker says of itself."""
    with database.read() as c:
        (row,) = workers.known(c)
    return row


def build(database: Database, settings: Settings, body: str, slots: int = 1) -> Worker:
    return Worker(database, settings, Capacity(slots, 1, ()), FreshStarter(program(body)))


def test_one_bell_is_enough_for_all_jobs(database: Database, settings: Settings, spec: TrainingSpec) -> None:
    create(database, spec, 3)
    build(database, settings, SUCCEEDS).work()
    assert statuses(database) == [JobStatus.SUCCEEDED] * 3


def test_a_second_bell_for_the_same_job_does_nothing(
    database: Database, settings: Settings, spec: TrainingSpec
) -> None:
    (job_id,) = create(database, spec, 1)
    worker = build(database, settings, SUCCEEDS)
    for _ in range(3):
        worker.work()
    with database.read() as c:
        assert len(attempts.list_for(c, job_id)) == 1


def test_bells_and_polls_together_never_exceed_the_slots(
    database: Database, settings: Settings, spec: TrainingSpec
) -> None:
    create(database, spec, 5)
    worker = build(database, settings, WAITS + SUCCEEDS, slots=2)
    worker.start()
    bells = [threading.Thread(target=worker.work) for _ in range(6)]
    for bell in bells:
        bell.start()
    wait_until(lambda: len(list(settings.data_dir.glob("jobs/*/*/begun"))) == 2)
    # Every other bell has found no slot and is gone; the polls go on meanwhile.
    wait_until(lambda: sum(bell.is_alive() for bell in bells) <= 2)
    assert statuses(database).count(JobStatus.RUNNING) == 2
    (settings.data_dir / "go").touch()
    wait_until(lambda: statuses(database) == [JobStatus.SUCCEEDED] * 5)
    for bell in bells:
        bell.join()
    worker.stop()


def test_a_worker_that_nobody_rings_finds_jobs_by_itself(
    database: Database, settings: Settings, spec: TrainingSpec
) -> None:
    worker = build(database, settings, SUCCEEDS)
    worker.start()
    create(database, spec, 2)
    wait_until(lambda: statuses(database) == [JobStatus.SUCCEEDED] * 2)
    with database.read() as c:
        (row,) = workers.recent(c, seconds=5)
    assert (row.id, row.status, row.slots) == (worker.id, "active", 1)
    worker.stop()
    with database.read() as c:
        assert workers.recent(c, seconds=5) == []


def test_a_worker_that_rarely_polls_is_there_all_the_time(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"poll_seconds": 3600.0, "heartbeat_seconds": 0.05})
    worker = build(database, settings, SUCCEEDS)
    worker.start()
    wait_until(lambda: presence(database).heartbeat > 3 and presence(database).cpu_domain is not None)
    worker.stop()


class CountingStarter(FreshStarter):
    """Knows how often somebody has waited for it: each who wants to claim does."""

    num_waits = 0

    def ready(self, seconds: float) -> bool:
        self.num_waits += seconds > 0
        return super().ready(seconds)


def test_an_idle_worker_leaves_jobs_alone_that_do_not_fit(
    database: Database, settings: Settings, spec: TrainingSpec
) -> None:
    on_gpu = spec.model_copy(update={"training": spec.training.model_copy(update={"device": "cuda"})})
    create(database, on_gpu, 1)
    starter = CountingStarter(program(SUCCEEDS))
    worker = Worker(database, settings, Capacity(1, 1, ()), starter)
    worker.start()
    wait_until(lambda: presence(database).cpu_domain is not None)
    known_at = presence(database).heartbeat
    wait_until(lambda: presence(database).heartbeat > known_at + 5)  # with each goes a poll
    assert starter.num_waits == 0
    create(database, spec, 1)
    wait_until(lambda: statuses(database) == [JobStatus.SUCCEEDED, JobStatus.QUEUED])
    worker.stop()


def test_a_worker_that_stops_takes_nothing_more(database: Database, settings: Settings, spec: TrainingSpec) -> None:
    create(database, spec, 2)
    worker = build(database, settings, POLITE)
    bell = threading.Thread(target=worker.work)
    bell.start()
    wait_until(lambda: JobStatus.RUNNING in statuses(database))
    worker.start()
    worker.stop()
    bell.join()
    worker.work()
    assert statuses(database) == [JobStatus.QUEUED] * 2


def test_what_cannot_be_supervised_fails_after_the_last_attempt(
    database: Database, settings: Settings, spec: TrainingSpec
) -> None:
    (job_id,) = create(database, spec, 1)
    build(database, settings, "send('riddle')").work()
    with database.read() as c:
        job = jobs.get(c, job_id)
    assert job is not None
    assert (job.status, job.attempt) == (JobStatus.FAILED, 3)
    assert job.error is not None
    assert job.error.code == "internal"
    assert "riddle" in job.error.message
