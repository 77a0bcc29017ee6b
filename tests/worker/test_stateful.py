from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Connection

from cnn.spec import TrainingSpec
from tests.worker.machine import Rules, Workers
from worker.jobs import Fenced, Job, JobStatus
from worker.store import attempts, jobs, retries
from worker.store.database import Database


def run(machine: type[Workers], examples: int, *, find_only: bool = False) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
            phases=[Phase.generate] if find_only else list(Phase),
            report_multiple_bugs=not find_only,
        ),
    )


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    opened.migrate()
    yield opened
    opened.close()


def test_the_rules_keep_the_invariants() -> None:
    run(Rules, examples=100)


def test_the_store_keeps_the_rules(database: Database, spec: TrainingSpec) -> None:
    run(type("OnStore", (Rules,), {"database": database, "spec": spec}), examples=10)


def without_fencing(monkeypatch: pytest.MonkeyPatch, held: Callable[[Connection, str, int], Job]) -> None:
    for module in (attempts, retries):
        monkeypatch.setattr(module, "held", held)


def test_a_store_that_compares_no_tokens_is_found_to_let_a_lost_worker_write(
    sqlite: Database, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(c: Connection, job_id: str, token: int) -> Job:
        job = jobs.lock(c, job_id)
        if job.status != JobStatus.RUNNING:
            raise Fenced(job_id, token)
        return job

    without_fencing(monkeypatch, held)
    with pytest.raises(AssertionError, match="the store answers None, the rules say fenced"):
        run(type("OnStore", (Workers,), {"database": sqlite, "spec": spec}), examples=200, find_only=True)


def test_a_store_without_fencing_is_found_to_end_a_job_twice(
    sqlite: Database, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_fencing(monkeypatch, lambda c, job_id, _: jobs.lock(c, job_id))
    every = dict.fromkeys(JobStatus, frozenset(JobStatus))
    monkeypatch.setattr(jobs, "TRANSITIONS", every)
    machine = type("OnStore", (Workers,), {"database": sqlite, "spec": spec, "compares": False, "legal": every})
    with pytest.raises(AssertionError, match="I4: a job ended twice"):
        run(machine, examples=200, find_only=True)
