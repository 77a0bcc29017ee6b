"""What stands still for longer than a lease, is told to stop, or comes twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from cnn.spec import TrainingSpec
from tests.faults.conftest import Settle, Start
from tests.faults.faults import locked
from tests.faults.installation import Installation
from tests.integration.processes import wait_until
from tests.postgresql import PostgreSQL
from worker.jobs import JobStatus
from worker.queue import ring

FREEZES: dict[str, Callable[[Installation], AbstractContextManager[None]]] = {
    "API": lambda installation: installation.api.frozen(),
    "broker": lambda installation: installation.frozen_broker(),
    "database": locked,
}


def beyond_the_lease(installation: Installation) -> None:
    time.sleep(installation.settings.lease_seconds + 1)


@pytest.mark.parametrize("part", FREEZES)
def test_a_part_that_stands_still_for_longer_than_a_lease_costs_no_attempt(
    part: str, installation: Installation, long: TrainingSpec, settle: Settle
) -> None:
    job_id = installation.submit(f"long/frozen {part}", long)
    installation.wait_for_step(job_id, 1)
    with FREEZES[part](installation):
        beyond_the_lease(installation)
    settle(installation)
    assert installation.reasons(job_id) == ["trained"]


def test_a_frozen_worker_loses_its_job_and_changes_nothing_when_it_wakes_up(
    installation: Installation, long: TrainingSpec, settle: Settle
) -> None:
    job_id = installation.submit("long/zombie", long)
    installation.wait_for_step(job_id, 1)
    with installation.holder(job_id).frozen():
        installation.wait_for(job_id, attempt=2)
        holder = installation.job(job_id).worker_id
    wait_until(lambda: installation.said(f"does not hold job {job_id} any more"))
    assert installation.job(job_id).worker_id == holder, installation.reasons(job_id)
    settle(installation)
    assert installation.reasons(job_id) == ["worker_lost", "trained"]


def test_a_worker_that_is_told_to_stop_hands_its_job_on(
    installation: Installation, long: TrainingSpec, settle: Settle
) -> None:
    job_id = installation.submit("long/drain", long)
    installation.wait_for_step(job_id, 1)
    worker = installation.holder(job_id)
    assert worker.stop() == 0
    worker.start()
    settle(installation)
    assert installation.reasons(job_id) == ["worker_drained", "trained"]


def test_bells_that_are_delivered_again_and_again_train_once(
    installation: Installation, mix: dict[str, TrainingSpec], long: TrainingSpec, settle: Settle
) -> None:
    job_ids = [installation.submit("long/bells", long), installation.submit("10-lion/bells", mix["10-lion"])]
    for _ in range(100):
        assert all([ring(installation.celery, job_id) for job_id in job_ids])
    installation.wait_for(job_ids[1], status=JobStatus.SUCCEEDED)
    assert all([ring(installation.celery, job_id) for job_id in job_ids])
    settle(installation)
    assert [installation.reasons(job_id) for job_id in job_ids] == [["trained"], ["trained"]]


@pytest.mark.parametrize("now", [False, True])
@pytest.mark.parametrize("phase", ["starting", "training"])
def test_a_cancelled_job_ends_within_its_grace_and_leaves_no_process(
    phase: str, now: bool, installation: Installation, long: TrainingSpec, settle: Settle
) -> None:
    job_id = installation.submit(f"long/cancel {phase} {now}", long)
    installation.client.may_not_succeed.add(job_id)
    if phase == "starting":
        installation.wait_for(job_id, status=JobStatus.RUNNING)
    else:
        installation.wait_for_step(job_id, 1)
    installation.client.cancel(job_id, now=now)
    asked = time.monotonic()
    installation.wait_for(job_id, status=JobStatus.CANCELLED)
    assert job_id not in installation.trainers.values()
    assert time.monotonic() - asked < installation.settings.cancel_grace_seconds + 2
    settle(installation)


def test_a_frozen_trainer_is_killed_when_its_grace_is_over(
    installation: Installation, long: TrainingSpec, settle: Settle
) -> None:
    job_id = installation.submit("long/frozen trainer", long)
    installation.client.may_not_succeed.add(job_id)
    installation.wait_for_step(job_id, 1)
    installation.signal_trainer(job_id, signal.SIGSTOP)
    installation.client.cancel(job_id)
    asked = time.monotonic()
    installation.wait_for(job_id, status=JobStatus.CANCELLED)
    assert job_id not in installation.trainers.values()
    assert time.monotonic() - asked < installation.settings.cancel_grace_seconds + 2
    settle(installation)


def test_a_postgresql_that_freezes_and_crashes_costs_no_attempt(
    start: Start, postgresql: PostgreSQL, postgresql_url: str, long: TrainingSpec, settle: Settle
) -> None:
    installation = start(database_url=postgresql_url)
    job_id = installation.submit("long/postgresql", long)
    installation.wait_for_step(job_id, 1)
    with postgresql.frozen():
        beyond_the_lease(installation)
    postgresql.stop(signal.SIGQUIT)
    time.sleep(installation.settings.heartbeat_seconds)
    postgresql.start()
    settle(installation)
    assert installation.reasons(job_id) == ["trained"]
