from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection

from cnn.spec import TrainingSpec
from worker.jobs import Fenced, Intent, Job, JobError, JobStatus
from worker.store import artifacts, attempts, intents, jobs, metrics, retries
from worker.store.attempts import Exit
from worker.store.database import Database
from worker.store.retries import RetryPolicy

POLICY = RetryPolicy(max_fruitless=3, backoff_seconds=0.0)
CRASH = JobError(code="killed_by_signal", message="killed by signal 9", blame="platform", retryable=True)


@pytest.fixture
def job(database: Database, spec: TrainingSpec) -> Job:
    with database.write() as c:
        return jobs.create(c, spec=spec, name=None)


def claim(database: Database, worker_id: str = "w", device: str = "cpu", threads: int = 2) -> Job:
    with database.write() as c:
        job = attempts.claim(c, worker_id=worker_id, device=device, threads=threads)
    assert job is not None
    return job


def test_a_claim_takes_the_job_and_begins_an_attempt(database: Database, job: Job) -> None:
    claimed = claim(database)
    assert (claimed.id, claimed.status, claimed.phase) == (job.id, JobStatus.RUNNING, "starting")
    assert (claimed.attempt, claimed.token, claimed.worker_id, claimed.device, claimed.threads) == (1, 1, "w", "cpu", 2)
    with database.write() as c:
        assert attempts.claim(c, worker_id="other", device="cpu") is None
        (attempt,) = attempts.list_for(c, job.id)
    assert (attempt.number, attempt.token, attempt.worker_id, attempt.ended_at) == (1, 1, "w", None)


def test_claims_go_by_priority_then_age(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        created = [jobs.create(c, spec=spec, name=None, priority=priority) for priority in (0, 5, 0, 5, -1)]
    order = [claim(database).id for _ in created]
    assert order == [created[index].id for index in (1, 3, 0, 2, 4)]


@pytest.mark.parametrize(
    ("wanted", "worker", "used"),
    [
        ("auto", "cpu", "cpu"),
        ("auto", "cuda", "cuda"),
        ("cpu", "cpu", "cpu"),
        ("cpu", "cuda", "cpu"),
        ("cuda", "cpu", None),
        ("cuda", "cuda", "cuda"),
    ],
)
def test_a_job_goes_to_a_worker_that_has_its_device(
    database: Database, spec: TrainingSpec, wanted: str, worker: str, used: str | None
) -> None:
    asking = spec.model_copy(update={"training": spec.training.model_copy(update={"device": wanted})})
    with database.write() as c:
        jobs.create(c, spec=asking, name=None)
        claimed = attempts.claim(c, worker_id="w", device=worker)
    assert (claimed and claimed.device) == used


def test_the_thread_count_is_fixed_at_the_first_claim(database: Database, job: Job) -> None:
    first = claim(database, threads=2)
    with database.write() as c:
        attempts.requeue(c, job.id, first.token, reason="worker_drained")
    assert claim(database, threads=8).threads == 2


CLAIMER = """
import sys
from worker.store import attempts
from worker.store.database import Database
database = Database(sys.argv[1])
while True:
    with database.write() as c:
        job = attempts.claim(c, worker_id=sys.argv[2], device="cpu")
    if job is None:
        break
    print(job.id)
"""


def test_racing_processes_never_claim_the_same_job(database: Database, database_url: str, spec: TrainingSpec) -> None:
    with database.write() as c:
        created = {jobs.create(c, spec=spec, name=None).id for _ in range(60)}
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, database_url, f"w-{number}"], stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    claimed = [line for claimer in claimers for line in claimer.communicate(timeout=60)[0].split()]
    assert Counter(claimed) == Counter(created)
    assert all(claimer.returncode == 0 for claimer in claimers)


WRITES: dict[str, Callable[[Connection, Job], object]] = {
    "heartbeat": lambda c, job: attempts.heartbeat(c, job.id, job.token),
    "intent": lambda c, job: attempts.wish(c, job.id, job.token),
    "phase": lambda c, job: attempts.phase(c, job.id, job.token, "training"),
    "progress": lambda c, job: attempts.progress(
        c, job.id, job.token, epoch=1, epochs=5, step=3, num_steps=50, eta_at=None
    ),
    "checkpoint": lambda c, job: attempts.checkpoint(c, job.id, job.token, epoch=1, step=3),
    "metrics": lambda c, job: metrics.append(
        c, job.id, job.token, [metrics.Point(key="lr", epoch=1, step=3, value=0.1, at=datetime.now(UTC))]
    ),
    "resume": lambda c, job: metrics.resume(c, job.id, job.token, step=0),
    "artifacts": lambda c, job: artifacts.add(c, job.id, job.token, []),
    "finish": lambda c, job: attempts.finish(c, job.id, job.token, JobStatus.CANCELLED, reason="cancelled"),
    "requeue": lambda c, job: attempts.requeue(c, job.id, job.token, reason="worker_drained"),
    "crash": lambda c, job: retries.crash(c, job.id, job.token, error=CRASH, policy=POLICY),
}


def test_a_worker_that_lost_its_job_can_write_nothing(database: Database, job: Job) -> None:
    lost = claim(database)
    with database.write() as c:
        assert retries.take_back(c, job.id, lost.token, lost.heartbeat, policy=POLICY) is not None
    for taken_by_another in (False, True):
        if taken_by_another:
            claim(database, "another")
        with database.read() as c:
            before = jobs.get(c, job.id)
        for write in WRITES.values():
            with pytest.raises(Fenced), database.write() as c:
                write(c, lost)
        with database.read() as c:
            assert jobs.get(c, job.id) == before
            assert metrics.points(c, job.id, limit=9) == []


@pytest.mark.parametrize("name", list(WRITES))
def test_the_holder_can_write(database: Database, job: Job, name: str) -> None:
    held = claim(database)
    assert held.id == job.id
    with database.write() as c:
        WRITES[name](c, held)


def test_a_heartbeat_raises_the_counter_and_brings_the_intent(database: Database, job: Job) -> None:
    held = claim(database)
    with database.write() as c:
        assert attempts.heartbeat(c, job.id, held.token) == attempts.Wish(intent=None)
        intents.request_cancel(c, job.id)
        assert attempts.heartbeat(c, job.id, held.token) == attempts.Wish(intent=Intent.CANCEL)
        assert retries.running(c) == [retries.Heartbeat(job_id=job.id, token=1, counter=held.heartbeat + 2)]


def test_progress_and_phase_are_on_the_job(database: Database, job: Job) -> None:
    held = claim(database)
    with database.write() as c:
        WRITES["phase"](c, held)
        WRITES["progress"](c, held)
        seen = jobs.get(c, job.id)
    assert seen is not None
    assert seen.progress is not None
    assert (seen.phase, seen.progress.step, seen.progress.fraction) == ("training", 3, 0.06)


def test_a_drained_job_goes_back_and_counts_for_nothing(database: Database, job: Job) -> None:
    for number in range(1, 6):
        held = claim(database)
        assert held.attempt == number
        with database.write() as c:
            back = attempts.requeue(c, job.id, held.token, reason="worker_drained", exit=Exit(exit_code=75))
        assert (back.status, back.fruitless_attempts) == (JobStatus.QUEUED, 0)
    with database.read() as c:
        assert {(a.reason, a.exit_code) for a in attempts.list_for(c, job.id)} == {("worker_drained", 75)}


def test_attempt_and_token_never_fall(database: Database, job: Job) -> None:
    seen = []
    for _ in range(3):
        held = claim(database)
        with database.write() as c:
            back = attempts.requeue(c, job.id, held.token, reason="worker_drained")
        seen += [(held.attempt, held.token), (back.attempt, back.token)]
    assert seen == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]
