from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from cnn.spec import TrainingSpec
from tests.worker.many_jobs import START, fill
from worker.jobs import Job, JobStatus
from worker.store import claims, intents, jobs
from worker.store.database import Database
from worker.store.jobs import JobFilter
from worker.store.tables import job_tags

NUM_STEPS = 100
"""Instructions of SQLite's machine between two looks at their number."""


def anything(index: int) -> dict[str, Any]:
    chance = random.Random(index)
    status = chance.choice([JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.CANCELLED])
    return {
        "status": status,
        "finished_at": START if status == JobStatus.CANCELLED else None,
        "pause_reason": "user" if status == JobStatus.PAUSED else None,
        "name": chance.choice([None, "one", "two"]),
        "owner_id": chance.choice([None, "key_1", "key_2"]),
        "tags": chance.sample(["a", "b", "ab", "a:b"], chance.randrange(4)),
        "priority": chance.randrange(3),
    }


def wanted(job: Job, by: JobFilter) -> bool:
    return (
        (not by.statuses or job.status in by.statuses)
        and by.name in (None, job.name)
        and by.owner_id in (None, job.owner_id)
        and set(by.tags) <= set(job.tags)
        and (by.created_after is None or job.created_at > by.created_after)
        and (by.created_before is None or job.created_at < by.created_before)
    )


def test_pages_of_all_filters_hold_what_was_asked_for(database: Database, spec: TrainingSpec) -> None:
    fill(database, spec, 80, anything)
    statuses = ((), (JobStatus.QUEUED,), (JobStatus.PAUSED, JobStatus.QUEUED, JobStatus.PAUSED), (JobStatus.RUNNING,))
    tags = ((), ("a",), ("a", "b"), ("b", "a", "a"), ("none",))
    times = (
        (None, None),
        (START + timedelta(minutes=20), None),
        (START + timedelta(minutes=9), START + timedelta(hours=1)),
    )
    with database.read() as c:
        everything = jobs.page(c, limit=100)
        assert len(everything) == 80
        for status, tag, name, owner, (after, before) in product(statuses, tags, (None, "one"), (None, "key_1"), times):
            chosen = JobFilter(
                statuses=status, tags=tag, name=name, owner_id=owner, created_after=after, created_before=before
            )
            expected = [job for job in everything if wanted(job, chosen)]
            first = jobs.page(c, chosen, limit=3)
            rest = jobs.page(c, chosen, limit=100, before=first[-1].id) if first else []
            assert [*first, *rest] == expected


def test_places_in_a_queue_are_those_of_the_order_of_claims(database: Database, spec: TrainingSpec) -> None:
    same = START + timedelta(hours=3)
    fill(database, spec, 60, lambda index: anything(index) | ({"created_at": same} if index % 3 else {}))
    with database.read() as c:
        order = claims.claimable_ids(c, limit=100)
        found = jobs.page(c, limit=100)
        places = claims.queue_positions(c, found)
        assert places == {job_id: place for place, job_id in enumerate(order, start=1)}
        for count in (1, 2, 7):
            some = random.Random(count).sample(found, count)
            assert claims.queue_positions(c, some) == {
                job.id: places[job.id] for job in some if job.status == JobStatus.QUEUED
            }


def test_changed_tags_are_found_and_those_of_deleted_jobs_are_gone(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        job = jobs.create(c, spec=spec, name=None, tags=("old", "both", "both"))
        intents.change(c, job.id, tags=("both", "new"))
        found = [len(jobs.page(c, JobFilter(tags=[tag]), limit=9)) for tag in ("old", "both", "new")]
        assert found == [0, 1, 1]
        intents.request_cancel(c, job.id)
        intents.remove(c, job.id)
        assert c.execute(select(job_tags)).all() == []


def num_instructions(database: Database, work: Callable[[Connection], object]) -> int:
    """About as many as SQLite's machine runs for it."""
    steps: list[int] = []
    with database.read() as c:
        connection = c.connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        connection.set_progress_handler(lambda: steps.append(NUM_STEPS), NUM_STEPS)
        work(c)
        connection.set_progress_handler(None, 0)
    return sum(steps)


RARE = {"status": JobStatus.PAUSED, "pause_reason": "user", "name": "rare", "owner_id": "key_1", "tags": ["rare"]}
SELECTIVE = [
    JobFilter(),
    JobFilter(statuses=[JobStatus.PAUSED]),
    JobFilter(statuses=[JobStatus.PAUSED, JobStatus.RUNNING]),
    JobFilter(statuses=[JobStatus.QUEUED, JobStatus.PAUSED]),
    JobFilter(name="rare"),
    JobFilter(name="none"),
    JobFilter(owner_id="key_1"),
    JobFilter(owner_id="key_1", statuses=[JobStatus.QUEUED]),
    JobFilter(tags=["rare"]),
    JobFilter(tags=["common"]),
    JobFilter(tags=["none"]),
    JobFilter(tags=["rare"], statuses=[JobStatus.QUEUED, JobStatus.PAUSED]),
    JobFilter(created_before=START + timedelta(hours=2)),
    JobFilter(created_after=START + timedelta(hours=20), tags=["common"]),
]


@pytest.mark.parametrize("chosen", SELECTIVE)
def test_a_page_costs_as_much_among_many_jobs_as_among_few(
    tmp_path: Path, spec: TrainingSpec, chosen: JobFilter
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    database.migrate()
    fill(database, spec, 3000, lambda index: RARE if index % 1000 == 7 else {"tags": ["common"], "owner_id": "key_2"})
    # One instruction a job would be 3000, and a filter needs several.
    assert num_instructions(database, lambda c: jobs.page(c, chosen, limit=10)) < 4000
    database.close()


def test_places_are_told_by_counting_each_job_once(tmp_path: Path, spec: TrainingSpec) -> None:
    database = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    database.migrate()
    fill(database, spec, 3000, lambda index: {"priority": index % 2})
    with database.read() as c:
        found = jobs.page(c, limit=200)
    # Each of the page counted from the front would be 200 * 3000 / 2 steps at least.
    assert 3000 < num_instructions(database, lambda c: claims.queue_positions(c, found)) < 100_000
    database.close()
