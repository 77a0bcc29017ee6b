from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from cnn.spec import TrainingSpec
from worker.durations import learn
from worker.forecast import work_of
from worker.jobs import Job
from worker.start_times import MAX_WAITING, start_times
from worker.store import attempts, jobs, tables, workers
from worker.store.database import Database

SECONDS = 10.0


def create(database: Database, spec: TrainingSpec, device: str = "auto", priority: int = 0) -> Job:
    training = spec.training.model_copy(update={"device": device})
    with database.write() as c:
        return jobs.create(c, spec=spec.model_copy(update={"training": training}), name=None, priority=priority)


def register(database: Database, worker_id: str, device: str, slots: int, gpus: int = 1) -> None:
    with database.write() as c:
        workers.register(
            c, worker_id=worker_id, host="h", pid=1, device=device, slots=slots, threads=1, gpus_per_slot=gpus
        )


def test_jobs_start_one_after_the_other_behind_what_runs(database: Database, spec: TrainingSpec) -> None:
    register(database, "w-1", "cpu", 2)
    running = create(database, spec)
    due = datetime.now(UTC) + timedelta(hours=1)
    with database.write() as c:
        attempts.claim(c, worker_id="w-1", device="cpu", job_id=running.id)
        c.execute(update(tables.jobs).values(eta_at=due))
    later, first = create(database, spec), create(database, spec, priority=1)
    amount = work_of(spec.model_dump_json(), "cpu")
    assert amount is not None
    # Without a history, a job takes what the rough constants say: here a few seconds, so that both fit in one slot.
    each = timedelta(seconds=learn(()).estimate(amount).seconds)
    assert each < timedelta(minutes=10)
    with database.read() as c:
        times = start_times(c, seconds=SECONDS)
    now = times.of_jobs[first.id]
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
    assert times.of_jobs == {first.id: now, later.id: now + each}
    assert times.of_last["auto"] == now + 2 * each
    assert times.of(create(database, spec)) == now + 2 * each


def test_a_job_waits_for_a_worker_with_its_device(database: Database, spec: TrainingSpec) -> None:
    on_gpu, anywhere = create(database, spec, "cuda"), create(database, spec)
    with database.read() as c:
        assert start_times(c, seconds=SECONDS).of(anywhere) is None
    register(database, "w-1", "cpu", 1)
    with database.read() as c:
        times = start_times(c, seconds=SECONDS)
        assert times.of(on_gpu) is None
        assert times.of(anywhere) is not None
    register(database, "w-2", "cuda", 1)
    with database.read() as c:
        assert start_times(c, seconds=SECONDS).of(on_gpu) is not None


def test_a_job_on_several_gpus_waits_for_a_worker_whose_slots_have_as_many(
    database: Database, spec: TrainingSpec
) -> None:
    training = spec.training.model_copy(update={"devices": 2})
    on_two = create(database, spec.model_copy(update={"training": training}))
    behind = create(database, spec)
    register(database, "w-1", "cuda", 1)
    with database.read() as c:
        times = start_times(c, seconds=SECONDS)
    assert times.of(on_two) is None
    assert times.of_jobs[behind.id] - datetime.now(UTC) < timedelta(seconds=1), "it waits for nobody"
    register(database, "w-2", "cuda", 1, gpus=2)
    with database.read() as c:
        assert start_times(c, seconds=SECONDS).of(on_two) is not None


def test_nothing_is_said_of_jobs_far_behind(database: Database, spec: TrainingSpec) -> None:
    register(database, "w-1", "cpu", 1)
    waiting = [create(database, spec) for _ in range(MAX_WAITING + 1)]
    with database.read() as c:
        times = start_times(c, seconds=SECONDS)
    assert len(times.of_jobs) == MAX_WAITING
    assert times.of(waiting[-1]) is None
