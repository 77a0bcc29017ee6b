from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from cnn.spec import TrainingSpec
from worker.jobs import Job, JobStatus, OnDomainChange
from worker.store import attempts, events, intents, jobs, tables, workers
from worker.store.database import Database
from worker.store.domains import ABSENT_AFTER, domain_of, has_kernels

HERE = {"cpu": "torch 1 on AVX2"}
ELSEWHERE = {"cpu": "torch 1 on AVX512"}
GPU = {"cpu": HERE["cpu"], "cuda": "torch 1 on an H100"}


def create(database: Database, spec: TrainingSpec, on_change: OnDomainChange = OnDomainChange.WAIT) -> Job:
    with database.write() as c:
        return jobs.create(c, spec=spec, name=None, on_domain_change=on_change)


def claim(database: Database, domains: dict[str, str], threads: int = 1) -> Job | None:
    device = "cuda" if "cuda" in domains else "cpu"
    with database.write() as c:
        return attempts.claim(c, worker_id="w", device=device, threads=threads, domains=domains)


def interrupt(database: Database, job: Job | None) -> None:
    assert job is not None
    with database.write() as c:
        attempts.checkpoint(c, job.id, job.token, epoch=1, step=5)
        attempts.requeue(c, job.id, job.token, reason="worker_drained")


def register(database: Database, domains: dict[str, str], threads: int = 1) -> None:
    with database.write() as c:
        workers.register(c, worker_id="w-1", host="h", pid=1, device="cpu", slots=1, threads=threads)
        workers.record_domains(c, "w-1", domains)


def warnings(database: Database, job: Job) -> list[str]:
    with database.read() as c:
        return [event.data["code"] for event in events.after(c, job.id, 0, 99, types=["job.warning"])]


def test_the_domain_is_what_a_trainer_told_without_the_threads() -> None:
    assert domain_of({"torch": "2", "threads": 1}) == domain_of({"threads": 8, "torch": "2"}) == '{"torch": "2"}'


def test_the_first_claim_fixes_domain_and_threads(database: Database, spec: TrainingSpec) -> None:
    create(database, spec)
    interrupt(database, claim(database, HERE, threads=2))
    again = claim(database, HERE, threads=4)
    assert again is not None
    assert (again.domain, again.threads, again.checkpoint_step) == (HERE["cpu"], 2, 5)


def test_kernels_are_used_where_the_domain_names_a_library() -> None:
    assert has_kernels(domain_of({"torch": "2", "native": "0123"}))
    assert not has_kernels(domain_of({"torch": "2", "device": "cpu"}))
    assert not has_kernels(None)


@pytest.mark.parametrize(("domains", "threads"), [(ELSEWHERE, 2), (HERE, 1), ({}, 2)])
def test_a_job_that_has_begun_waits_for_its_domain_and_its_threads(
    database: Database, spec: TrainingSpec, domains: dict[str, str], threads: int
) -> None:
    job = create(database, spec)
    interrupt(database, claim(database, HERE, threads=2))
    assert claim(database, domains, threads=threads) is None
    assert claim(database, HERE, threads=2) is not None
    assert warnings(database, job) == []


def test_a_job_that_may_continue_does_so_elsewhere_and_an_event_tells(database: Database, spec: TrainingSpec) -> None:
    job = create(database, spec, OnDomainChange.CONTINUE)
    interrupt(database, claim(database, HERE, threads=2))
    moved = claim(database, ELSEWHERE, threads=1)
    assert moved is not None
    assert (moved.domain, moved.threads, moved.checkpoint_step) == (ELSEWHERE["cpu"], 1, 5)
    assert warnings(database, job) == ["domain_changed"]


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({}, False),
        ({"status": "stopped"}, True),
        ({"last_seen_at": -ABSENT_AFTER * 1.1}, True),
        ({"last_seen_at": -ABSENT_AFTER * 0.8}, False),
        ({"threads": 1}, True),
        ({"cpu_domain": "other"}, True),
    ],
)
def test_a_job_that_may_continue_waits_while_a_worker_of_its_domain_is_there(
    database: Database, spec: TrainingSpec, change: dict[str, object], moves: bool
) -> None:
    create(database, spec, OnDomainChange.CONTINUE)
    interrupt(database, claim(database, HERE, threads=2))
    register(database, HERE, threads=2)
    with database.write() as c:
        if isinstance(ago := change.get("last_seen_at"), timedelta):
            (seen,) = c.execute(tables.workers.select().with_only_columns(tables.workers.c.last_seen_at)).scalars()
            change = {"last_seen_at": seen + ago}
        if change:
            c.execute(update(tables.workers).values(change))
    assert (claim(database, ELSEWHERE, threads=4) is not None) == moves


@pytest.mark.parametrize("devices", [1, 2])
def test_a_job_that_began_on_a_cpu_goes_on_there_on_a_worker_with_a_gpu(
    database: Database, spec: TrainingSpec, devices: int
) -> None:
    training = spec.training.model_copy(update={"devices": devices})
    create(database, spec.model_copy(update={"training": training}))
    interrupt(database, claim(database, HERE))
    job = claim(database, GPU)
    assert job is not None
    assert (job.device, job.domain) == ("cpu", GPU["cpu"])


@pytest.mark.parametrize(
    ("device", "domains", "gpus", "fits"),
    [("auto", GPU, 1, False), ("auto", GPU, 2, True), ("cpu", GPU, 1, True), ("auto", HERE, 1, True)],
)
def test_a_job_on_several_gpus_waits_for_a_worker_whose_trainers_see_as_many(
    database: Database, spec: TrainingSpec, device: str, domains: dict[str, str], gpus: int, fits: bool
) -> None:
    training = spec.training.model_copy(update={"devices": 2, "device": device})
    create(database, spec.model_copy(update={"training": training}))
    kind = "cuda" if "cuda" in domains else "cpu"
    with database.write() as c:
        job = attempts.claim(c, worker_id="w", device=kind, domains=domains, gpus=gpus)
    assert (job is not None) == fits


def test_a_job_on_a_gpu_of_before_there_were_several_is_on_one(database: Database, spec: TrainingSpec) -> None:
    job = create(database, spec)
    older = {**job.spec, "training": {key: value for key, value in job.spec["training"].items() if key != "devices"}}
    with database.write() as c:
        c.execute(tables.jobs.update().values(spec=older))
    assert claim(database, GPU) is not None


def test_a_job_that_began_on_a_gpu_waits_for_one(database: Database, spec: TrainingSpec) -> None:
    create(database, spec)
    job = claim(database, GPU)
    assert job is not None
    assert job.device == "cuda"
    interrupt(database, job)
    assert claim(database, HERE) is None
    assert claim(database, GPU) is not None


def test_a_retry_from_scratch_may_begin_anywhere(database: Database, spec: TrainingSpec) -> None:
    create(database, spec)
    job = claim(database, HERE, threads=2)
    assert job is not None
    with database.write() as c:
        attempts.finish(c, job.id, job.token, JobStatus.CANCELLED, reason="cancelled")
        assert intents.retry(c, job.id, scratch=True).domain is None
    again = claim(database, ELSEWHERE, threads=1)
    assert again is not None
    assert (again.domain, again.threads) == (ELSEWHERE["cpu"], 1)
