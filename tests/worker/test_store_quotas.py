from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, update

from cnn.spec import TrainingSpec
from worker.jobs import Job, JobError, JobStatus
from worker.store import attempts, claims, dataset_tables, intents, jobs, keys, quotas, tables
from worker.store.database import Database
from worker.store.keys import Limits, Scope
from worker.store.quotas import QuotaExceeded, Usage

FAILURE = JobError(code="diverged", message="", blame="user", retryable=True)


@pytest.fixture
def key(database: Database) -> Callable[..., str]:
    def make(**limits: int) -> str:
        with database.write() as c:
            return keys.create(c, name="a", scope=Scope.SUBMIT, limits=Limits(**limits))[0].id

    return make


@pytest.fixture
def submit(database: Database, spec: TrainingSpec) -> Callable[..., Job]:
    def create(key_id: str | None, *, reserved_bytes: int = 0, max_runtime_seconds: int | None = None) -> Job:
        with database.write() as c:
            job = jobs.create(
                c,
                spec=spec,
                name=None,
                owner_id=key_id,
                reserved_bytes=reserved_bytes,
                max_runtime_seconds=max_runtime_seconds,
            )
            if key_id is not None:
                quotas.reserve(c, key_id, quotas.cost(reserved_bytes, max_runtime_seconds))
            return job

    return create


def claim(database: Database) -> Job | None:
    with database.write() as c:
        return attempts.claim(c, worker_id="w", device="cpu")


def test_of_many_submissions_at_once_as_many_get_in_as_the_quota_allows(
    database: Database, key: Callable[..., str], submit: Callable[..., Job]
) -> None:
    limited, other = key(max_queued=10), key()

    def attempt(_: int) -> bool:
        try:
            submit(limited)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(attempt, range(50))) == 10
    with database.read() as c:
        assert quotas.usage(c, limited).queued == 10
        assert len(jobs.page(c, limit=100)) == 10
    submit(other)
    submit(None)


def test_paused_jobs_wait_too_and_a_retry_needs_room(
    database: Database, key: Callable[..., str], submit: Callable[..., Job]
) -> None:
    key_id = key(max_queued=1)
    first = submit(key_id)
    with database.write() as c:
        intents.request_pause(c, first.id)
    with pytest.raises(QuotaExceeded, match="at most 1 of queued for the key, got 1 and 1 more"):
        submit(key_id)
    with database.write() as c:
        intents.request_cancel(c, first.id)
    second = submit(key_id)
    with pytest.raises(QuotaExceeded), database.write() as c:
        intents.retry(c, first.id)
    with database.write() as c:
        intents.request_cancel(c, second.id)
        assert intents.retry(c, first.id).status == JobStatus.QUEUED


def test_a_claim_passes_over_the_jobs_of_a_key_that_runs_enough(
    database: Database, key: Callable[..., str], submit: Callable[..., Job]
) -> None:
    key_id, stopped = key(max_running=1), key(max_running=0)
    mine = [submit(key_id), submit(key_id)]
    submit(stopped)
    others = [submit(key()), submit(None)]
    claimed = [claim(database) for _ in range(4)]
    assert [job and job.id for job in claimed] == [mine[0].id, others[0].id, others[1].id, None]
    assert claimed[0] is not None
    with database.write() as c:
        assert claims.claimable_ids(c, limit=10) == []
        attempts.finish(c, mine[0].id, claimed[0].token, JobStatus.FAILED, reason="diverged", error=FAILURE)
    next_one = claim(database)
    assert next_one is not None
    assert next_one.id == mine[1].id


def test_workers_that_claim_at_once_start_no_more_than_the_quota(
    database: Database, key: Callable[..., str], submit: Callable[..., Job]
) -> None:
    key_id = key(max_running=2)
    for _ in range(8):
        submit(key_id)
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim(database), range(8)))
    assert sum(job is not None for job in claimed) == 2


def test_device_seconds_are_reserved_spent_and_never_come_back(
    database: Database, key: Callable[..., str], submit: Callable[..., Job]
) -> None:
    key_id = key(max_device_seconds=100)
    with pytest.raises(QuotaExceeded, match=r"got 0 and a job without limits\.max_runtime_seconds"):
        submit(key_id)
    first = submit(key_id, max_runtime_seconds=60)
    with pytest.raises(QuotaExceeded, match="at most 100 of device_seconds for the key, got 60 and 50 more"):
        submit(key_id, max_runtime_seconds=50)
    running = claim(database)
    assert running is not None
    assert running.id == first.id
    with database.write() as c:
        began = datetime.now(UTC) - timedelta(seconds=25)
        c.execute(update(tables.attempts).where(tables.attempts.c.job_id == first.id).values(started_at=began))
        attempts.requeue(c, first.id, running.token, reason="drained")
        # 25 seconds are spent, and the other 35 of the 60 are still reserved.
        assert quotas.usage(c, key_id).device_seconds == pytest.approx(60, abs=0.1)
        assert keys.get(c, key_id).device_seconds == pytest.approx(25, abs=5)
        intents.request_cancel(c, first.id)
        intents.remove(c, first.id)
        assert quotas.usage(c, key_id).device_seconds == pytest.approx(25, abs=5)
    submit(key_id, max_runtime_seconds=70)


def test_stored_bytes_are_those_of_artifacts_uploads_and_datasets_and_what_is_reserved(
    database: Database, key: Callable[..., str], submit: Callable[..., Job]
) -> None:
    key_id = key(max_stored_bytes=10_000)
    submit(key_id, reserved_bytes=1000)
    running = claim(database)
    assert running is not None
    now = datetime.now(UTC)
    with database.write() as c:
        assert quotas.usage(c, key_id).stored_bytes == 1000
        c.execute(
            insert(tables.artifacts).values(
                job_id=running.id,
                name="model.safetensors",
                attempt=1,
                bytes=300,
                sha256="0" * 64,
                media_type="x/y",
                step=1,
                created_at=now,
            )
        )
        attempts.finish(c, running.id, running.token, JobStatus.FAILED, reason="diverged", error=FAILURE)
        assert quotas.usage(c, key_id).stored_bytes == 300
        c.execute(
            insert(dataset_tables.uploads).values(
                id="up_1", owner_id=key_id, bytes=5000, sha256="0" * 64, received=0, created_at=now, expires_at=now
            )
        )
        assert quotas.usage(c, key_id) == Usage(stored_bytes=5300, device_seconds=pytest.approx(0, abs=5))
    submit(key_id, reserved_bytes=4700)
    with pytest.raises(QuotaExceeded, match="at most 10000 of stored_bytes for the key, got 10000 and 1 more"):
        submit(key_id, reserved_bytes=1)
