"""A real `python -m worker`, a real Valkey and the real trainer: what a user sees when something dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
import redis
from celery import Celery

from cnn.spec import TrainingSpec
from tests.integration.processes import alive, descendants, freeze, hears_sigterm, named, trainers, wait_until
from worker.jobs import Job, JobStatus
from worker.queue import make_celery, num_bells, ring
from worker.settings import Settings
from worker.store import attempts, intents, jobs, metrics
from worker.store.database import Database
from worker.valkey import Valkey

SPEC = """{"dataset": {"type": "digits"},
 "augmentation": [{"type": "translate", "max_shift": 0.1}],
 "model": {"type": "layers", "layers": [
    {"type": "conv2d", "out_channels": 8, "kernel_size": 3}, {"type": "batch_norm"}, {"type": "relu"},
    {"type": "flatten"}, {"type": "dropout", "keep_prob": 0.8}, {"type": "linear", "out_features": 10}]},
 "optimizer": {"type": "nesterov", "lr": 0.05},
 "training": {"epochs": %d, "batch_size": 64}}"""


@dataclass
class Host:
    """One data directory with its broker and database, on which workers are started."""

    settings: Settings
    valkey: Valkey
    database: Database
    app: Celery
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "EPOCHD_DATA_DIR": str(self.settings.data_dir),
            "EPOCHD_REDIS_URL": self.valkey.url,
            "EPOCHD_DATABASE_URL": self.settings.resolved_database_url(),
            "EPOCHD_SLOTS": "1",
            "EPOCHD_THREADS": "1",
            "EPOCHD_CANCEL_GRACE_SECONDS": "5",
        }
        with (self.settings.data_dir / f"worker-{len(self.processes)}.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker"], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def submit(self, epochs: int, **training: object) -> str:
        spec = TrainingSpec.model_validate_json(SPEC % epochs)
        spec = spec.model_copy(update={"training": spec.training.model_copy(update=training)})
        with self.database.write() as c:
            job = jobs.create(c, spec=spec, name=None)
        ring(self.app, job.id)
        return job.id

    def job(self, job_id: str) -> Job:
        with self.database.read() as c:
            job = jobs.get(c, job_id)
        assert job is not None
        return job

    def wait_for(self, job_id: str, condition: Callable[[Job], bool], seconds: float = 120) -> Job:
        deadline = time.monotonic() + seconds
        while not condition(job := self.job(job_id)):
            assert time.monotonic() < deadline, f"{job}\n{self.logs()}"
            assert job.status != JobStatus.FAILED or condition(job), job.error
            time.sleep(0.05)
        return job

    def attempts(self, job_id: str) -> list[attempts.Attempt]:
        with self.database.read() as c:
            return attempts.list_for(c, job_id)

    def values(self, job_id: str) -> list[tuple[str, int, float | None]]:
        with self.database.read() as c:
            points = metrics.points(c, job_id, limit=100_000)
        return [(point.key, point.step, point.value) for point in points if not point.timing]

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.settings.data_dir.glob("worker-*.txt")))


@contextmanager
def open_host(data_dir: Path, database_url: str | None = None) -> Iterator[Host]:
    valkey = Valkey(data_dir)
    valkey.start()
    settings = Settings(data_dir=data_dir, redis_url=valkey.url, database_url=database_url)
    database = Database(settings.resolved_database_url())
    database.migrate()
    host = Host(settings, valkey, database, make_celery(settings))
    try:
        yield host
    finally:
        trainers = {pid for process in host.processes for pid in descendants(process.pid)}
        for process in host.processes:
            process.kill()
            process.wait()
        wait_until(lambda: not alive(trainers), seconds=15)
        host.app.close()
        database.close()
        valkey.stop()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with open_host(tmp_path) as host:
        yield host


def trainer_of(worker: subprocess.Popen[bytes]) -> int:
    (pid,) = trainers(worker.pid)
    return pid


def begun(job: Job) -> bool:
    return job.progress is not None and job.progress.step > 0


def saved(job: Job) -> bool:
    return job.checkpoint_step > 0


def ended(job: Job) -> bool:
    return job.terminal


def test_a_killed_trainer_is_tried_again_and_ends_with_the_same_bytes(host: Host) -> None:
    worker = host.start_worker()
    undisturbed = host.wait_for(host.submit(12), ended)
    disturbed_id = host.submit(12)
    host.wait_for(disturbed_id, saved)
    os.kill(trainer_of(worker), signal.SIGKILL)
    killed = time.monotonic()
    disturbed = host.wait_for(disturbed_id, ended)
    assert time.monotonic() - killed < 30
    assert (undisturbed.status, disturbed.status) == (JobStatus.SUCCEEDED, JobStatus.SUCCEEDED)
    first, second = host.attempts(disturbed_id)
    assert (first.signal, first.reason, second.reason) == (9, "killed_by_signal", "trained")
    assert second.first_step > 0
    assert undisturbed.result is not None
    assert disturbed.result == undisturbed.result
    assert host.values(disturbed_id) == host.values(undisturbed.id)


def test_a_job_on_two_devices_survives_the_loss_of_a_rank_and_a_cancel_leaves_none(host: Host) -> None:
    worker = host.start_worker()
    undisturbed = host.wait_for(host.submit(6, devices=2), ended)
    disturbed_id = host.submit(6, devices=2)
    host.wait_for(disturbed_id, saved)
    (rank,) = descendants(trainer_of(worker))
    os.kill(rank, signal.SIGKILL)
    disturbed = host.wait_for(disturbed_id, ended)
    assert [attempt.reason for attempt in host.attempts(disturbed_id)] == ["trainer_crashed", "trained"]
    assert undisturbed.status == JobStatus.SUCCEEDED
    assert disturbed.result == undisturbed.result
    assert host.values(disturbed_id) == host.values(undisturbed.id)
    cancelled_id = host.submit(100_000, devices=2)
    host.wait_for(cancelled_id, begun)
    ranks = descendants(trainer_of(worker))
    with host.database.write() as c:
        intents.request_cancel(c, cancelled_id)
    assert host.wait_for(cancelled_id, ended, seconds=20).status == JobStatus.CANCELLED
    assert not alive(ranks)


def test_workers_share_the_jobs_of_a_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    with open_host(tmp_path, postgresql_url) as host:
        host.start_worker()
        host.start_worker()
        done = [host.wait_for(job_id, ended) for job_id in [host.submit(2) for _ in range(3)]]
    assert [(job.status, job.attempt) for job in done] == [(JobStatus.SUCCEEDED, 1)] * 3
    assert len({job.result.sha256 for job in done if job.result is not None}) == 1


def test_a_second_delivery_of_a_bell_does_nothing(host: Host) -> None:
    host.start_worker()
    job_id = host.submit(1)
    ring(host.app, job_id)
    done = host.wait_for(job_id, ended)
    assert ring(host.app, job_id)
    wait_until(lambda: num_bells(host.app) == 0)
    assert host.job(job_id) == done
    assert len(host.attempts(job_id)) == 1


def test_a_bell_just_after_a_job_or_after_one_for_nothing_is_heard_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHD_POLL_SECONDS", "3600")
    host.start_worker()
    waits = []
    for _ in range(9):
        job = host.wait_for(host.submit(1), ended)
        assert job.started_at is not None
        waits.append((job.started_at - job.created_at).total_seconds())
        ring(host.app, job.id)
        wait_until(lambda: num_bells(host.app) == 0)
    assert median(waits) < 0.5
    for _ in range(30):
        ring(host.app, job.id)
    time.sleep(1)
    assert (num_bells(host.app) or 0) > 15, "bells for nothing must not take the time of the jobs that train"


def test_a_cancelled_job_leaves_no_process(host: Host) -> None:
    worker = host.start_worker()
    job_id = host.submit(100_000)
    host.wait_for(job_id, begun)
    trainer = trainer_of(worker)
    with host.database.write() as c:
        intents.request_cancel(c, job_id)
    assert host.wait_for(job_id, ended, seconds=8).status == JobStatus.CANCELLED
    assert not alive({trainer})
    assert host.attempts(job_id)[0].exit_code == 75


def test_a_paused_job_ends_with_the_same_bytes(host: Host) -> None:
    worker = host.start_worker()
    undisturbed = host.wait_for(host.submit(80), ended)
    paused_id = host.submit(80)
    host.wait_for(paused_id, begun)
    with host.database.write() as c:
        intents.request_pause(c, paused_id)
    paused = host.wait_for(paused_id, lambda job: job.status == JobStatus.PAUSED)
    assert not trainers(worker.pid)
    with host.database.write() as c:
        intents.resume(c, paused_id)
    resumed = host.wait_for(paused_id, ended)
    first, second = host.attempts(paused_id)
    assert (first.exit_code, first.reason) == (75, "paused")
    assert 0 < second.first_step == paused.checkpoint_step
    assert undisturbed.result is not None
    assert resumed.result == undisturbed.result
    assert host.values(paused_id) == host.values(undisturbed.id)


def test_a_worker_that_is_told_to_stop_hands_its_job_on_within_seconds(host: Host) -> None:
    worker = host.start_worker()
    job_id = host.submit(100_000)
    host.wait_for(job_id, begun)
    trainer = trainer_of(worker)
    worker.terminate()
    assert worker.wait(10) == 0
    assert not alive({trainer})
    job = host.job(job_id)
    assert (job.status, job.fruitless_attempts) == (JobStatus.QUEUED, 0)
    assert host.attempts(job_id)[0].reason == "worker_drained"
    assert job.checkpoint_step > 0
    host.start_worker()
    host.wait_for(job_id, lambda job: job.status == JobStatus.RUNNING)
    host.wait_for(job_id, lambda job: host.attempts(job_id)[1].first_step == job.checkpoint_step)


UP: dict[str, Callable[[Host, subprocess.Popen[bytes]], bool]] = {
    "imports": lambda _host, worker: hears_sigterm(worker.pid),
    "launcher": lambda _host, worker: bool(descendants(worker.pid)),
    "celery": lambda host, _worker: "ready" in host.logs(),
}
"""How far a worker has come."""


@pytest.mark.parametrize(
    ("moment", "number"), [*((moment, signal.SIGTERM) for moment in UP), ("launcher", signal.SIGINT)]
)
def test_a_worker_that_is_told_to_stop_while_it_starts_ends_well(
    host: Host, moment: str, number: signal.Signals
) -> None:
    worker = host.start_worker()
    wait_until(lambda: UP[moment](host, worker), seconds=60, pause=0.001)
    begun = descendants(worker.pid)
    worker.send_signal(number)
    assert worker.wait(15) == 0, host.logs()
    assert not alive(begun)
    assert "Traceback" not in host.logs()


def test_a_killed_worker_takes_its_trainer_along_and_another_one_goes_on(host: Host) -> None:
    first = host.start_worker()
    job_id = host.submit(100_000)
    host.wait_for(job_id, saved)
    trainer = trainer_of(first)
    second = host.start_worker()
    wait_until(lambda: bool(named("epochd-launcher", second.pid)), seconds=60)
    first.kill()
    killed = time.monotonic()
    wait_until(lambda: not alive({trainer}), seconds=2)
    again = host.wait_for(job_id, lambda job: job.attempt == 2)
    assert time.monotonic() - killed < 15
    assert again.fruitless_attempts == 0
    assert host.attempts(job_id)[0].reason == "worker_lost"


def test_a_frozen_worker_loses_its_trainer_and_its_job(host: Host) -> None:
    first = host.start_worker()
    job_id = host.submit(100_000)
    host.wait_for(job_id, saved)
    trainer = trainer_of(first)
    second = host.start_worker()
    wait_until(lambda: bool(named("epochd-launcher", second.pid)), seconds=60)
    freeze(first.pid, host.settings.resolved_database_url())
    wait_until(lambda: not alive({trainer}), seconds=10)
    host.wait_for(job_id, lambda job: job.attempt == 2, seconds=20)
    holder = host.job(job_id).worker_id
    first.send_signal(signal.SIGCONT)
    wait_until(lambda: "goes on elsewhere" in host.logs(), seconds=10)
    assert (host.job(job_id).attempt, host.job(job_id).worker_id) == (2, holder)


def test_jobs_run_though_the_broker_forgets_everything(host: Host) -> None:
    host.start_worker()
    with redis.Redis(unix_socket_path=str(host.valkey.socket), password=host.valkey.password) as client:
        client.flushall()
        job_ids = [host.submit(1), host.submit(1)]
        client.flushall()
    for job_id in job_ids:
        assert host.wait_for(job_id, ended).attempt == 1


def test_a_worker_without_a_broker_still_works_and_stops(host: Host) -> None:
    assert host.valkey.process is not None
    host.valkey.process.kill()
    host.valkey.process.wait()
    worker = host.start_worker()
    assert host.wait_for(host.submit(1), ended).status == JobStatus.SUCCEEDED
    worker.terminate()
    assert worker.wait(15) == 0


def test_ringing_a_frozen_broker_returns_within_seconds(host: Host) -> None:
    assert host.valkey.process is not None
    assert ring(host.app, "job_1")
    host.valkey.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not ring(host.app, "job_2")
    assert time.monotonic() - began < 4
    host.valkey.process.send_signal(signal.SIGCONT)
    assert ring(host.app, "job_3")
    host.valkey.process.kill()
    host.valkey.process.wait()
    began = time.monotonic()
    assert not ring(host.app, "job_4")
    assert num_bells(host.app) is None
    assert time.monotonic() - began < 4


@pytest.mark.slow
def test_a_worker_stops_though_its_broker_is_frozen(host: Host) -> None:
    assert host.valkey.process is not None
    worker = host.start_worker()
    job_id = host.submit(100_000)
    host.wait_for(job_id, begun)
    host.valkey.process.send_signal(signal.SIGSTOP)
    worker.terminate()
    try:
        assert worker.wait(30) == 0
    finally:
        host.valkey.process.send_signal(signal.SIGCONT)
    assert host.job(job_id).status == JobStatus.QUEUED


def test_a_job_starts_from_the_weights_of_another(host: Host) -> None:
    host.start_worker()
    first = host.submit(4)
    host.wait_for(first, lambda job: job.status == JobStatus.SUCCEEDED)
    second = host.submit(1, init_from=first)
    host.wait_for(second, lambda job: job.status == JobStatus.SUCCEEDED)
    losses = {
        job_id: next(value for key, _, value in host.values(job_id) if key == "train_loss")
        for job_id in (first, second)
    }
    from_scratch, from_weights = losses[first], losses[second]
    assert from_scratch is not None
    assert from_weights is not None
    assert from_weights < from_scratch / 2  # in the first epoch
