"""SIGKILL: of trainers, workers, API and broker, at the moments that matter."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from cnn.spec import TrainingSpec
from tests.faults.conftest import Settle, Start
from tests.faults.installation import Installation, Process
from tests.faults.reference import Outcome
from tests.integration.processes import wait_until
from worker.artifacts import BlobStore, attempt_folder
from worker.jobs import ErrorCode, JobStatus

MAX_TRIES = 10


def soon(condition: Callable[[], bool]) -> None:
    """Wait for a moment that is over in a tenth of a second."""
    wait_until(condition, seconds=60, pause=0.001)


def exports(installation: Installation, job_id: str, attempt: int) -> Callable[[], bool]:
    """Whether an attempt has begun to write files for users."""
    folder = attempt_folder(installation.data_dir, job_id, attempt).artifacts
    return lambda: folder.exists() and any(folder.iterdir())


def strike(
    installation: Installation, name: str, spec: TrainingSpec, weights: Path, number: signal.Signals
) -> tuple[str, Process]:
    """Signal a worker after it has stored a job's weights, and before it has recorded them; the job and the worker.

    That moment lasts for some hundredths of a second: whoever comes too late tries it with another job.
    """
    for wish in range(MAX_TRIES):
        before = inode(weights)
        job_id = installation.submit(f"{name}/{number.name} {wish}", spec)
        worker = installation.holder(installation.wait_for(job_id, status=JobStatus.RUNNING).id)
        soon(partial(differs, weights, before))
        worker.signal(number)
        # A worker that was frozen while it was writing holds the lock of SQLite.
        if can_write(installation) and installation.job(job_id).status == JobStatus.RUNNING:
            return job_id, worker
        worker.signal(signal.SIGCONT)
        if number == signal.SIGKILL:
            worker.kill()
            worker.start()
        installation.wait_for(job_id, status=JobStatus.SUCCEEDED)
    raise AssertionError(f"no worker was caught before its record in {MAX_TRIES} tries")


def differs(path: Path, before: int | None) -> bool:
    """Whether a file has come, or another one in its place."""
    return inode(path) != before


def inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def can_write(installation: Installation) -> bool:
    with closing(sqlite3.connect(installation.data_dir / "epochd.db", timeout=1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


def answered(asked: list[Future[str]], number: float) -> bool:
    """Whether more wishes than these were answered."""
    return sum(wish.done() for wish in asked) > number


def test_a_trainer_killed_in_every_phase_ends_with_the_same_bytes(
    installation: Installation, mix: dict[str, TrainingSpec], settle: Settle
) -> None:
    job_id = installation.submit("00-sgd/phases", mix["00-sgd"])
    checkpoints = attempt_folder(installation.data_dir, job_id, 2).checkpoints
    moments: list[Callable[[], bool]] = [
        lambda: True,
        lambda: any(checkpoints.glob("step-*")),
        exports(installation, job_id, 3),
    ]
    for attempt, moment in enumerate(moments, start=1):
        installation.wait_for(job_id, attempt=attempt)
        soon(lambda: job_id in installation.trainers.values())
        trainer = installation.trainer_of(job_id)
        soon(moment)
        os.kill(trainer, signal.SIGKILL)
    settle(installation)
    assert installation.reasons(job_id) == ["killed_by_signal"] * 3 + ["trained"]


def test_a_poison_job_fails_and_harms_no_other(
    installation: Installation, mix: dict[str, TrainingSpec], settle: Settle
) -> None:
    poison = installation.submit("05-adam/poison", mix["05-adam"])
    installation.client.may_not_succeed.add(poison)
    others = [installation.submit(f"{name}/beside poison", mix[name]) for name in ("06-adamw", "07-amsgrad")]
    while not installation.job(poison).terminal:
        for pid, job_id in installation.trainers.items():
            if job_id == poison:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    settle(installation)
    job = installation.job(poison)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 3)
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == (ErrorCode.KILLED_BY_SIGNAL, True)
    assert [installation.job(job_id).attempt for job_id in others] == [1, 1]
    installation.client.may_not_succeed.remove(poison)
    installation.client.retry(poison)
    settle(installation)
    assert installation.job(poison).attempt == 4


def test_a_killed_workers_job_goes_on_elsewhere(installation: Installation, long: TrainingSpec, settle: Settle) -> None:
    job_id = installation.submit("long/worker killed", long)
    installation.wait_for_step(job_id, 1)
    trainer = installation.trainer_of(job_id)
    worker = installation.holder(job_id)
    worker.kill()
    killed = time.monotonic()
    wait_until(lambda: trainer not in installation.trainers, seconds=2)
    installation.wait_for(job_id, attempt=2)
    assert time.monotonic() - killed < 15
    worker.start()
    settle(installation)
    assert installation.reasons(job_id) == ["worker_lost", "trained"]


def test_a_worker_killed_between_the_weights_and_the_record(
    installation: Installation, mix: dict[str, TrainingSpec], expected: dict[str, Outcome], settle: Settle
) -> None:
    weights = BlobStore(installation.data_dir).path(expected["08-nadam"].sha256)
    job_id, worker = strike(installation, "08-nadam", mix["08-nadam"], weights, signal.SIGKILL)
    worker.kill()
    worker.start()
    settle(installation)
    assert installation.reasons(job_id) == ["worker_lost", "trained"]


def test_a_worker_that_wakes_up_after_its_lease_records_nothing(
    installation: Installation, mix: dict[str, TrainingSpec], expected: dict[str, Outcome], settle: Settle
) -> None:
    """It has finished its job, and freezes before it can say so."""
    weights = BlobStore(installation.data_dir).path(expected["09-adadelta"].sha256)
    job_id, worker = strike(installation, "09-adadelta", mix["09-adadelta"], weights, signal.SIGSTOP)
    job = installation.wait_for(job_id, status=JobStatus.SUCCEEDED, attempt=2)
    worker.signal(signal.SIGCONT)
    wait_until(lambda: installation.said(f"does not hold job {job_id} any more"))
    assert installation.job(job_id) == job
    settle(installation)
    assert installation.reasons(job_id) == ["worker_lost", "trained"]


def test_an_api_killed_in_a_storm_of_posts_makes_one_job_of_each_wish(
    installation: Installation, mix: dict[str, TrainingSpec], settle: Settle
) -> None:
    wishes = [(f"{name}/storm {number}", spec) for number in range(2) for name, spec in mix.items()]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(installation.submit, *wish) for wish in wishes]
        for share in (0.1, 0.4, 0.7):
            wait_until(partial(answered, asked, share * len(asked)), seconds=60)
            installation.api.kill()
            installation.api.start()
        job_ids = [wish.result() for wish in asked]
    installation.wait_for_api()
    assert len(set(job_ids)) == len(wishes)
    settle(installation)


def test_a_job_whose_bell_was_never_rung_is_trained(start: Start, mix: dict[str, TrainingSpec], settle: Settle) -> None:
    """The API dies between the commit and the bell, then Redis forgets a bell that was rung; nobody polls."""
    installation = start(poll_seconds="3600")
    with installation.frozen_broker():
        installation.submit("02-nesterov/no bell", mix["02-nesterov"])
        installation.api.kill()
    installation.wipe_broker()
    installation.api.start()
    installation.wait_for_api()
    settle(installation)
    worker = installation.workers[0]
    worker.stop()
    job_id = installation.submit("03-adagrad/forgotten bell", mix["03-adagrad"])
    installation.wipe_broker()
    worker.start()
    settle(installation)
    assert installation.job(job_id).attempt == 1


def test_jobs_go_on_without_a_broker(installation: Installation, mix: dict[str, TrainingSpec], settle: Settle) -> None:
    before = [installation.submit(f"{name}/before", mix[name]) for name in ("03-adagrad", "04-rmsprop", "05-adam")]
    installation.kill_broker()
    without = installation.submit("06-adamw/without broker", mix["06-adamw"])
    installation.wait_for(without, status=JobStatus.SUCCEEDED)
    installation.valkey.start()
    after = installation.submit("07-amsgrad/after", mix["07-amsgrad"])
    settle(installation)
    assert {installation.job(job_id).attempt for job_id in (*before, without, after)} == {1}
