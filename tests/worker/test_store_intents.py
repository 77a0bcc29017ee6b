from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, func, select

from cnn.spec import TrainingSpec
from tests.worker.test_store_jobs import ERROR, RESULT
from worker.jobs import Intent, InvalidTransition, Job, JobError, JobNotFound, JobStatus
from worker.store import artifacts, attempts, claims, events, intents, jobs, metrics, retries, tables
from worker.store.database import Database
from worker.store.retries import RetryPolicy

CRASH = JobError(code="trainer_crashed", message="…", blame="platform", retryable=True)
POLICY = RetryPolicy(max_fruitless=3, backoff_seconds=60.0)


def claim(c: Connection) -> Job:
    job = attempts.claim(c, worker_id="w", device="cpu")
    assert job is not None
    return job


@pytest.fixture
def job(database: Database, spec: TrainingSpec) -> Job:
    with database.write() as c:
        return jobs.create(c, spec=spec, name=None)


def put(c: Connection, job: Job, status: JobStatus, intent: Intent | None = None) -> None:
    """Bring a queued job into a state as users and workers do."""
    if status == JobStatus.QUEUED:
        return
    if status == JobStatus.PAUSED:
        intents.request_pause(c, job.id)
        return
    held = claim(c)
    if intent == Intent.PAUSE:
        intents.request_pause(c, job.id)
    if intent == Intent.CANCEL:
        intents.request_cancel(c, job.id)
    if status.terminal:
        result = RESULT if status == JobStatus.SUCCEEDED else None
        error = ERROR if status == JobStatus.FAILED else None
        attempts.finish(c, job.id, held.token, status, reason="ended", result=result, error=error)


def reasons(c: Connection, job: Job) -> list[str]:
    return [event.data["reason"] for event in events.after(c, job.id, 0, 99, ["job.status"])]


def test_a_waiting_job_pauses_at_once_and_goes_on(database: Database, job: Job) -> None:
    with database.write() as c:
        paused = intents.request_pause(c, job.id)
        assert paused.status == JobStatus.PAUSED
        assert intents.request_pause(c, job.id) == paused
        assert attempts.claim(c, worker_id="w", device="cpu") is None
        queued = intents.resume(c, job.id)
        assert queued.status == JobStatus.QUEUED
        assert intents.resume(c, job.id) == queued
        assert claim(c).id == job.id
        assert reasons(c, job) == ["created", "paused", "resumed", "claimed"]


def test_a_running_job_pauses_when_its_worker_gives_it_back(database: Database, job: Job) -> None:
    with database.write() as c:
        held = claim(c)
        wanted = intents.request_pause(c, job.id)
        assert (wanted.status, wanted.intent) == (JobStatus.RUNNING, Intent.PAUSE)
        assert intents.request_pause(c, job.id) == wanted
        assert attempts.wish(c, job.id, held.token) == attempts.Wish(intent=Intent.PAUSE)
        paused = attempts.requeue(c, job.id, held.token, reason="paused")
        assert (paused.status, paused.intent, paused.phase) == (JobStatus.PAUSED, None, None)
        assert [event.data["to"] for event in events.after(c, job.id, 0, 99, ["job.intent"])] == ["pause"]
        intents.resume(c, job.id)
        assert claim(c).attempt == 2


def test_a_pause_that_has_not_happened_is_taken_back(database: Database, job: Job) -> None:
    with database.write() as c:
        held = claim(c)
        intents.request_pause(c, job.id)
        assert intents.resume(c, job.id).intent is None
        # The trainer may have been told already.
        assert attempts.requeue(c, job.id, held.token, reason="paused").status == JobStatus.QUEUED


def test_a_trainer_that_crashes_while_pausing_leaves_a_paused_job(database: Database, job: Job) -> None:
    with database.write() as c:
        held = claim(c)
        intents.request_pause(c, job.id)
        paused = retries.crash(c, job.id, held.token, error=CRASH, policy=POLICY)
        assert (paused.status, paused.fruitless_attempts) == (JobStatus.PAUSED, 1)
        intents.resume(c, job.id)
        assert claim(c).attempt == 2  # without the wait after a crash


def test_a_cancel_wins_over_a_pause_and_a_pause_loses_to_a_cancel(database: Database, job: Job) -> None:
    with database.write() as c:
        held = claim(c)
        intents.request_pause(c, job.id)
        assert intents.request_cancel(c, job.id).intent == Intent.CANCEL
        for asked in (intents.request_pause, intents.resume, intents.retry):
            with pytest.raises(InvalidTransition):
                asked(c, job.id)
        assert attempts.requeue(c, job.id, held.token, reason="paused").status == JobStatus.CANCELLED


def test_a_cancel_becomes_more_urgent_and_never_less(database: Database, job: Job) -> None:
    with database.write() as c:
        held = claim(c)
        wishes = []
        for now in (False, True, False):
            intents.request_cancel(c, job.id, now)
            wishes.append(attempts.heartbeat(c, job.id, held.token).now)
        assert wishes == [False, True, True]
        assert [event.data["now"] for event in events.after(c, job.id, 0, 99, ["job.intent"])] == [False, True]
        ended = attempts.finish(c, job.id, held.token, JobStatus.CANCELLED, reason="cancelled")
        assert not intents.retry(c, ended.id).cancel_now


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_retry_goes_on_under_the_same_id(database: Database, job: Job, status: JobStatus) -> None:
    with database.write() as c:
        attempts.checkpoint(c, job.id, claim(c).token, epoch=1, step=7)
        retries.crash(c, job.id, 1, error=CRASH, policy=RetryPolicy(max_fruitless=3, backoff_seconds=0))
        put(c, job, status)
        queued = intents.retry(c, job.id)
        assert (queued.status, queued.error, queued.finished_at) == (JobStatus.QUEUED, None, None)
        assert (queued.checkpoint_step, queued.first_attempt, queued.fruitless_attempts) == (7, 1, 0)
        assert intents.retry(c, job.id) == queued
        assert claim(c).attempt == 3
        assert attempts.list_for(c, job.id)[2].first_step == 7


def test_a_retry_from_scratch_forgets_how_far_it_was(database: Database, job: Job) -> None:
    with database.write() as c:
        held = claim(c)
        place = {"epoch": 1, "epochs": 2, "step": 9, "num_steps": 20}
        attempts.progress(c, job.id, held.token, **place, eta_at=None)
        attempts.checkpoint(c, job.id, held.token, epoch=1, step=7)
        attempts.finish(c, job.id, held.token, JobStatus.FAILED, reason="diverged", error=ERROR)
        queued = intents.retry(c, job.id, scratch=True)
        assert (queued.first_attempt, queued.checkpoint_step, queued.progress) == (2, 0, None)
        assert intents.retry(c, job.id, scratch=True) == queued


def test_a_job_that_continues_is_not_told_to_begin_anew(database: Database, job: Job) -> None:
    with database.write() as c:
        put(c, job, JobStatus.FAILED)
        intents.retry(c, job.id)
        with pytest.raises(InvalidTransition):
            intents.retry(c, job.id, scratch=True)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        *((intents.request_pause, s) for s in JobStatus if s.terminal),
        *((intents.resume, s) for s in JobStatus if s.terminal),
        (intents.retry, JobStatus.SUCCEEDED),
        (intents.retry, JobStatus.PAUSED),
        *((intents.remove, s) for s in JobStatus if not s.terminal),
    ],
)
def test_what_a_status_does_not_allow_changes_nothing(
    database: Database, job: Job, asked: Callable[[Connection, str], object], status: JobStatus
) -> None:
    with database.write() as c:
        put(c, job, status)
        before = jobs.get(c, job.id)
        with pytest.raises(InvalidTransition, match=f"is {status} and cannot become"):
            asked(c, job.id)
        assert jobs.get(c, job.id) == before


def test_a_priority_changes_the_order_of_claims(database: Database, spec: TrainingSpec, job: Job) -> None:
    with database.write() as c:
        later = jobs.create(c, spec=spec, name=None)
        changed = intents.change(c, later.id, priority=5, tags=("a",), name="b")
        assert (changed.priority, changed.tags, changed.name) == (5, ("a",), "b")
        assert intents.change(c, later.id, priority=5) == changed
        assert [event.type for event in events.after(c, later.id, 1, 9)] == ["job.changed"]
        assert claims.queue_positions(c, [job]) == {job.id: 2}
        assert claim(c).id == later.id


def test_a_deleted_job_leaves_no_row_and_keeps_shared_blobs(database: Database, spec: TrainingSpec, job: Job) -> None:
    with database.write() as c:
        other = jobs.create(c, spec=spec, name=None)
        for created in (job, other):
            held = claim(c)
            point = metrics.Point(key="val_loss", epoch=1, step=9, value=0.5, at=datetime.now(UTC))
            metrics.append(c, created.id, held.token, [point])
            shared = artifacts.NewArtifact(name="w", bytes=1, sha256="a" * 64, media_type="text/plain", step=9)
            own = artifacts.NewArtifact(name="x", bytes=1, sha256=created.id.ljust(64), media_type="x/y", step=9)
            artifacts.add(c, created.id, held.token, [shared, own])
            attempts.finish(c, created.id, held.token, JobStatus.SUCCEEDED, reason="trained", result=RESULT)
        assert intents.remove(c, job.id) == [job.id.ljust(64)]
        with pytest.raises(JobNotFound):
            intents.remove(c, job.id)
        for table in (tables.artifacts, tables.metrics, tables.events, tables.attempts):
            mine = select(func.count()).select_from(table).where(table.c.job_id == job.id)
            assert c.execute(mine).scalar_one() == 0
        assert intents.remove(c, other.id) == ["a" * 64, other.id.ljust(64)]
