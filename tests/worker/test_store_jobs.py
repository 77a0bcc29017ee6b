from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from cnn.spec import TrainingSpec
from worker.jobs import TRANSITIONS, Intent, InvalidTransition, Job, JobError, JobNotFound, JobResult, JobStatus
from worker.store import attempts, claims, events, intents, jobs, retries, tables
from worker.store.database import Database
from worker.store.jobs import JobFilter

RESULT = JobResult(
    test_loss=0.5,
    test_accuracy=0.75,
    weights="best",
    epoch=1,
    step=9,
    artifact="model.safetensors",
    sha256="0" * 64,
)
ERROR = JobError(code="diverged", message="…", blame="user", retryable=False, log_tail=("a", "b\x00c"))
ARGUMENTS: dict[JobStatus, dict[str, Any]] = {
    JobStatus.RUNNING: {"phase": "starting", "worker_id": "w", "attempt": 1, "token": 1},
    JobStatus.SUCCEEDED: {"result": asdict(RESULT)},
    JobStatus.FAILED: {"error": asdict(ERROR)},
}


def create(database: Database, spec: TrainingSpec, name: str | None = None, priority: int = 0) -> Job:
    with database.write() as c:
        return jobs.create(c, spec=spec, name=name, priority=priority)


def put(database: Database, job: Job, status: JobStatus) -> None:
    """Set a status without asking whether one may."""
    values = {"status": status, **ARGUMENTS.get(status, {}), "finished_at": job.created_at if status.terminal else None}
    with database.write() as c:
        c.execute(update(tables.jobs).where(tables.jobs.c.id == job.id).values(values))


def test_a_created_job_is_what_get_returns(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        job = jobs.create(c, spec=spec, name="näme", priority=3, tags=("a", "b"))
    with database.read() as c:
        assert jobs.get(c, job.id) == job
        assert jobs.get(c, "job_missing") is None
    assert (job.status, job.name, job.priority, job.tags) == (JobStatus.QUEUED, "näme", 3, ("a", "b"))
    assert job.created_at.tzinfo is not None
    assert TrainingSpec.model_validate_json(json.dumps(job.spec)) == spec


def test_the_digest_is_that_of_the_canonical_json() -> None:
    canonical = b'{"a":{"c":0.0005,"d":"\\u00e4"},"b":1}'
    expected = f"sha256:{hashlib.sha256(canonical).hexdigest()}"
    assert jobs.spec_digest({"b": 1, "a": {"d": "ä", "c": 5e-4}}) == expected


def test_every_edge_is_either_in_the_table_or_refused(database: Database, spec: TrainingSpec) -> None:
    for before, to in itertools.product(JobStatus, JobStatus):
        job = create(database, spec)
        put(database, job, before)
        with database.write() as c:
            job = jobs.lock(c, job.id)
            if to not in TRANSITIONS[before]:
                with pytest.raises(InvalidTransition, match=f"is {before} and cannot become {to}"):
                    jobs.move(c, job, to, reason="test")
                assert len(events.after(c, job.id, 0, 10)) == 1
                continue
            moved = jobs.move(c, job, to, reason="test", **ARGUMENTS.get(to, {}))
            assert moved.status == to
            data = events.after(c, job.id, 1, 10)[0].data
            assert (data["from"], data["to"], data["reason"]) == (before, to, "test")


def test_pages_go_from_new_to_old_and_filters_hold(database: Database, spec: TrainingSpec) -> None:
    created = [create(database, spec, name=f"n{number % 2}") for number in range(6)]
    newest_first = sorted((job.id for job in created), reverse=True)
    with database.write() as c:
        intents.request_cancel(c, created[0].id)
    with database.read() as c:
        first = jobs.page(c, limit=4)
        rest = jobs.page(c, limit=4, before=first[-1].id)
        assert [job.id for job in first + rest] == newest_first
        cancelled = jobs.page(c, JobFilter(statuses=[JobStatus.CANCELLED]), limit=4)
        assert [job.id for job in cancelled] == [created[0].id]
        assert {job.id for job in jobs.page(c, JobFilter(name="n1"), limit=9)} == {job.id for job in created[1::2]}


def test_a_page_stays_where_it_was_when_jobs_are_added(database: Database, spec: TrainingSpec) -> None:
    old = [create(database, spec) for _ in range(4)]
    with database.read() as c:
        first = jobs.page(c, limit=2)
    create(database, spec)
    with database.read() as c:
        rest = jobs.page(c, limit=9, before=first[-1].id)
    assert {job.id for job in first + rest} == {job.id for job in old}
    assert len(first + rest) == 4


def test_cancelling_a_queued_job_ends_it(database: Database, spec: TrainingSpec) -> None:
    job = create(database, spec)
    with database.write() as c:
        cancelled = intents.request_cancel(c, job.id)
        assert (cancelled.status, cancelled.finished_at is not None) == (JobStatus.CANCELLED, True)
        assert intents.request_cancel(c, job.id) == cancelled
        assert attempts.claim(c, worker_id="w", device="cpu") is None
        assert [event.type for event in events.after(c, job.id, 0, 10)] == ["job.status"] * 2


def test_cancelling_a_running_job_is_a_wish_once(database: Database, spec: TrainingSpec) -> None:
    job = create(database, spec)
    with database.write() as c:
        attempts.claim(c, worker_id="w", device="cpu")
        wanted = intents.request_cancel(c, job.id)
        assert (wanted.status, wanted.intent) == (JobStatus.RUNNING, Intent.CANCEL)
        assert intents.request_cancel(c, job.id) == wanted
        assert [event.type for event in events.after(c, job.id, 2, 10)] == ["job.intent"]


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_a_job_that_has_ended_cannot_be_cancelled(database: Database, spec: TrainingSpec, status: JobStatus) -> None:
    job = create(database, spec)
    end(database, status)
    with pytest.raises(InvalidTransition) as caught, database.write() as c:
        intents.request_cancel(c, job.id)
    assert caught.value.job.status == status


def test_cancelling_an_unknown_job(database: Database) -> None:
    with pytest.raises(JobNotFound, match="job_missing"), database.write() as c:
        intents.request_cancel(c, "job_missing")


def test_queue_positions_follow_priority_and_age(database: Database, spec: TrainingSpec) -> None:
    first, urgent, last = create(database, spec), create(database, spec, priority=5), create(database, spec)
    with database.write() as c:
        assert claims.queue_positions(c, [last, urgent, first]) == {urgent.id: 1, first.id: 2, last.id: 3}
        assert claims.queue_positions(c, [last]) == {last.id: 3}
        assert claims.claimable_ids(c, limit=9) == [urgent.id, first.id, last.id]
        claimed = attempts.claim(c, worker_id="w", device="cpu")
        assert claimed is not None
        assert claimed.id == urgent.id
        assert claims.queue_positions(c, [claimed, first, last]) == {first.id: 1, last.id: 2}
        assert claims.queue_positions(c, [claimed]) == {}


def end(database: Database, status: JobStatus) -> None:
    with database.write() as c:
        job = attempts.claim(c, worker_id="w", device="cpu")
        assert job is not None
        held = c, job.id, job.token
        if status == JobStatus.SUCCEEDED:
            assert attempts.finish(*held, status, reason="trained", result=RESULT).result == RESULT
        else:
            assert attempts.finish(*held, status, reason="diverged", error=ERROR).error == ERROR


def test_places_are_told_across_priorities_and_ages(database: Database, spec: TrainingSpec) -> None:
    waiting = [create(database, spec, priority=priority) for priority in (0, 5, 0, -1, 5, 0)]
    order = [waiting[index] for index in (1, 4, 0, 2, 5, 3)]
    with database.read() as c:
        for chosen in ([2, 5], [1, 4], [0, 3], [4, 2, 3, 1], [5]):
            found = [waiting[index] for index in chosen]
            assert claims.queue_positions(c, found) == {job.id: order.index(job) + 1 for job in found}


def test_the_queue_is_read_by_its_index(tmp_path: Path, spec: TrainingSpec) -> None:
    database = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    database.migrate()
    plans: list[str] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        plans.append(str(cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()))

    create(database, spec)
    with database.write() as c:
        event.listen(c.engine, "before_cursor_execute", explain)
        claims.claimable_ids(c, limit=10)
        attempts.claim(c, worker_id="w", device="cuda")
        retries.running(c)
        event.remove(c.engine, "before_cursor_execute", explain)
    is_any, *_, running = plans
    for plan in (is_any, running):
        assert "SEARCH jobs USING INDEX ix_jobs_status_id" in plan
    queue, claim = (plan for plan in plans if "SCAN jobs" in plan)
    for plan in (queue, claim):
        assert "SCAN jobs USING INDEX ix_jobs_queue" in plan
        assert "TEMP B-TREE" not in plan
    database.close()
