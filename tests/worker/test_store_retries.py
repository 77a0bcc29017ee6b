from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from cnn.spec import TrainingSpec
from worker.jobs import Job, JobError, JobStatus
from worker.store import attempts, claims, events, intents, jobs, metrics, retries, tables
from worker.store.attempts import Exit
from worker.store.database import Database
from worker.store.retries import RetryPolicy

POLICY = RetryPolicy(max_fruitless=3, backoff_seconds=0.0)
ONCE = RetryPolicy(max_fruitless=1, backoff_seconds=0.0)
CRASH = JobError(code="killed_by_signal", message="killed by signal 9", blame="platform", retryable=True)


@pytest.fixture
def job(database: Database, spec: TrainingSpec) -> Job:
    with database.write() as c:
        return jobs.create(c, spec=spec, name=None)


def claim(database: Database) -> Job:
    with database.write() as c:
        job = attempts.claim(c, worker_id="w", device="cpu")
    assert job is not None
    return job


def test_the_third_crash_without_a_newer_checkpoint_fails_the_job(database: Database, job: Job) -> None:
    statuses = []
    for _ in range(3):
        held = claim(database)
        with database.write() as c:
            ended = retries.crash(c, job.id, held.token, error=CRASH, policy=POLICY, exit=Exit(signal=9))
        statuses.append((ended.status, ended.fruitless_attempts))
    assert statuses == [(JobStatus.QUEUED, 1), (JobStatus.QUEUED, 2), (JobStatus.FAILED, 3)]
    assert ended.error == CRASH
    with database.read() as c:
        reasons = [event.data["reason"] for event in events.after(c, job.id, 0, 20)]
    assert reasons == ["created", "claimed", *["killed_by_signal", "claimed"] * 2, "killed_by_signal"]


def test_a_newer_checkpoint_starts_the_count_again(database: Database, job: Job) -> None:
    counts = []
    for step in (0, 0, 7, 7, 7):
        held = claim(database)
        with database.write() as c:
            metrics.resume(c, job.id, held.token, step=held.checkpoint_step)
            if step > held.checkpoint_step:
                attempts.checkpoint(c, job.id, held.token, epoch=1, step=step)
            counts.append(retries.crash(c, job.id, held.token, error=CRASH, policy=POLICY).fruitless_attempts)
    assert counts == [1, 2, 0, 1, 2]


def test_a_checkpoint_that_was_not_recorded_starts_the_count_again_too(database: Database, job: Job) -> None:
    held = claim(database)
    with database.write() as c:
        assert retries.crash(c, job.id, held.token, error=CRASH, policy=POLICY).fruitless_attempts == 1
    held = claim(database)
    with database.write() as c:
        metrics.resume(c, job.id, held.token, step=7)
        assert retries.crash(c, job.id, held.token, error=CRASH, policy=POLICY).fruitless_attempts == 1


def test_after_a_crash_the_job_waits_longer_each_time(database: Database, job: Job) -> None:
    policy = RetryPolicy(max_fruitless=3, backoff_seconds=600.0)
    held = claim(database)
    with database.write() as c:
        back = retries.crash(c, job.id, held.token, error=CRASH, policy=policy)
        assert back.not_before is not None
        assert 595 < (back.not_before - datetime.now(UTC)).total_seconds() <= 600
        assert attempts.claim(c, worker_id="w", device="cpu") is None
        assert claims.claimable_ids(c, limit=9) == []


def test_a_clock_that_was_set_back_holds_no_job_up(database: Database, job: Job) -> None:
    """It crashed when the clock was an hour ahead."""
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with database.write() as c:
        c.execute(update(tables.jobs).values(queued_at=ahead, not_before=ahead + timedelta(seconds=1)))
    assert claim(database).id == job.id


def test_workers_lost_three_times_in_a_row_fail_the_job(database: Database, job: Job) -> None:
    for _ in range(3):
        held = claim(database)
        with database.write() as c:
            ended = retries.take_back(c, job.id, held.token, held.heartbeat, policy=POLICY)
    assert ended is not None
    assert ended.error is not None
    assert (ended.status, ended.error.code, ended.error.blame) == ("failed", "max_attempts_exceeded", "platform")


def test_a_job_whose_counter_has_risen_is_not_taken_back(database: Database, job: Job) -> None:
    held = claim(database)
    with database.write() as c:
        attempts.heartbeat(c, job.id, held.token)
        assert retries.take_back(c, job.id, held.token, held.heartbeat, policy=POLICY) is None


@pytest.mark.parametrize("how", ["drain", "crash", "lost"])
def test_a_job_that_should_be_cancelled_does_not_go_back_to_the_queue(database: Database, job: Job, how: str) -> None:
    held = claim(database)
    with database.write() as c:
        intents.request_cancel(c, job.id)
        if how == "drain":
            attempts.requeue(c, job.id, held.token, reason="worker_drained")
        elif how == "crash":
            retries.crash(c, job.id, held.token, error=CRASH, policy=ONCE)
        else:
            retries.take_back(c, job.id, held.token, held.heartbeat, policy=ONCE)
        ended = jobs.get(c, job.id)
    assert ended is not None
    assert (ended.status, ended.intent, ended.error) == (JobStatus.CANCELLED, None, None)
