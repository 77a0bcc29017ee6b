from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from cnn.spec import TrainingSpec
from worker.store import event_log, events, intents, jobs
from worker.store.database import Database


def read_all(database: Database, number: int = 0) -> list[event_log.LoggedEvent]:
    with database.write() as c:
        while event_log.give_numbers(c, limit=7):
            pass
    with database.read() as c:
        return event_log.after(c, number, 10_000)


def test_events_of_all_jobs_are_numbered_in_the_order_of_each(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        ids = [jobs.create(c, spec=spec, name=None).id for _ in range(3)]
        for number in range(10):
            for job_id in ids:
                events.append(c, job_id, "job.warning", {"number": number}, attempt=0)
        assert event_log.has_unnumbered(c)
    log = read_all(database)
    assert [event.number for event in log] == list(range(1, 34))
    for job_id in ids:
        assert [event.id for event in log if event.job_id == job_id] == list(range(1, 12))
    with database.read() as c:
        assert not event_log.has_unnumbered(c)
        assert event_log.last_number(c) == 33
        assert [event.number for event in event_log.after(c, 30, 2)] == [31, 32]
        assert {event.type for event in event_log.after(c, 0, 99, ["job.status"])} == {"job.status"}


def test_the_number_of_a_deleted_event_is_not_given_again(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        gone = jobs.create(c, spec=spec, name=None)
        intents.request_cancel(c, gone.id)
    assert len(read_all(database)) == 2
    with database.write() as c:
        intents.remove(c, gone.id)
        jobs.create(c, spec=spec, name=None)
    assert [event.number for event in read_all(database)] == [3]


def test_a_reader_misses_nothing_of_transactions_that_commit_late(database: Database, spec: TrainingSpec) -> None:
    """Writers keep transactions open while readers number and read; each reader follows by its own last number."""
    with database.write() as c:
        ids = [jobs.create(c, spec=spec, name=None).id for _ in range(4)]
    done = threading.Event()

    def write(job_id: str) -> None:
        for number in range(25):
            with database.write() as c:
                events.append(c, job_id, "job.warning", {"number": number}, attempt=0)
                done.wait(0.002)

    def follow(_: int) -> list[event_log.LoggedEvent]:
        seen: list[event_log.LoggedEvent] = []
        while True:
            finished = done.is_set()
            new = read_all(database, seen[-1].number if seen else 0)
            seen += new
            if finished and not new:
                return seen

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(follow, number) for number in range(2)]
        list(pool.map(write, ids))
        done.set()
        first, second = (reader.result(timeout=30) for reader in readers)
    assert first == second
    assert [event.number for event in first] == list(range(1, 105))
    for job_id in ids:
        assert [event.id for event in first if event.job_id == job_id] == list(range(1, 27))
