from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cnn.spec import TrainingSpec
from worker.jobs import JobNotFound
from worker.store import events, jobs
from worker.store.database import Database


def test_ids_are_gap_free_under_concurrent_writers(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        job = jobs.create(c, spec=spec, name=None)

    def write(number: int) -> None:
        with database.write() as c:
            events.append(c, job.id, "job.warning", {"number": number}, attempt=1)

    def fail(number: int) -> None:
        with pytest.raises(ZeroDivisionError), database.write() as c:
            events.append(c, job.id, "job.warning", {"number": 1 // (number - number)}, attempt=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: (fail if number % 4 == 0 else write)(number), range(40)))
    with database.read() as c:
        stored = events.after(c, job.id, 0, 100)
        seen = jobs.get(c, job.id)
    assert [event.id for event in stored] == list(range(1, 32))
    assert [event.at for event in stored] == sorted(event.at for event in stored)
    assert {event.data["number"] for event in stored[1:]} == {n for n in range(40) if n % 4}
    assert seen is not None
    assert (seen.last_event_id, seen.updated_at) == (31, stored[-1].at)


def test_a_reader_can_continue_from_any_id_and_choose_types(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        job = jobs.create(c, spec=spec, name=None)
        for type in ("job.metric", "job.warning") * 3:
            events.append(c, job.id, type, {}, attempt=1)
    with database.read() as c:
        everything = events.after(c, job.id, 0, 100)
        for known in range(8):
            assert events.after(c, job.id, known, 100) == everything[known:]
        assert [event.id for event in events.after(c, job.id, 2, 2, ["job.metric"])] == [4, 6]


def test_an_unknown_job_has_no_events(database: Database) -> None:
    with pytest.raises(JobNotFound), database.write() as c:
        events.append(c, "job_missing", "job.warning", {}, attempt=0)
    with database.read() as c:
        assert events.after(c, "job_missing", 0, 10) == []
