"""A whole epochd as processes of its own, each of which can be killed, frozen, stopped and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis
from sqlalchemy import func, select

from cnn.spec import TrainingSpec
from tests.faults.clock import JumpingClock
from tests.faults.history import Client
from tests.faults.trainers import trainers
from tests.integration.processes import alive, descendants, freeze, wait_until
from worker.jobs import Job, JobStatus
from worker.queue import make_celery
from worker.settings import Settings, child_environment
from worker.store import attempts, jobs, tables
from worker.store.database import Database, DatabaseUnavailable
from worker.valkey import Valkey, die_with_parent

START_SECONDS = 60.0


class Process:
    """A command, started anew as often as it is killed; its output goes to one log."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = command
        self.environment = environment
        self.log = log
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,  # also when the tests are killed
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self._process.terminate()
        return self._process.wait(seconds)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        sqlite = f"sqlite:///{self.environment['EPOCHD_DATA_DIR']}/epochd.db"
        freeze(self.pid, self.environment.get("EPOCHD_DATABASE_URL", sqlite))
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)


class Installation:
    """Broker, API and workers on the data directory `folder / "data"`; their output is beside it.

    Args:
        database_url: of an empty database; SQLite in the data directory without one.
        num_workers: how many workers of one slot and one thread.
        clock: by which API and workers go.
        settings: fields of `Settings`, as strings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str | None = None,
        num_workers: int = 1,
        clock: JumpingClock | None = None,
        settings: Mapping[str, str],
    ) -> None:
        data_dir = folder / "data"
        data_dir.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_dir = data_dir
        self.clock = clock
        self.valkey = Valkey(data_dir)
        self.valkey.start()
        fixed = {
            "auth": "off",
            "port": str(_free_port()),
            "slots": "1",
            "threads": "1",
            "retry_backoff_seconds": "0.1",
        }
        self.settings = Settings.model_validate(
            {"data_dir": data_dir, "redis_url": self.valkey.url, "database_url": database_url, **fixed, **settings},
            strict=False,
        )
        self.database = Database(self.settings.resolved_database_url())
        self.database.migrate()
        self.celery = make_celery(self.settings)
        self._environment = {**child_environment(self.settings), **(clock.environment if clock else {})}
        self.api = Process([sys.executable, "-m", "server"], self._environment, folder / "api.txt")
        self.workers: list[Process] = []
        for _ in range(num_workers):
            self.add_worker()
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.client = Client(self.url)
        try:
            self.wait_for_api()
        except AssertionError:
            self.close()
            raise

    def add_worker(self, command: Sequence[str] = (sys.executable, "-m", "worker")) -> None:
        log = self.folder / f"worker-{len(self.workers)}.txt"
        self.workers.append(Process(command, self._environment, log))

    def wait_for_api(self) -> None:
        """Until the API answers."""
        wait_until(self._answers, seconds=START_SECONDS)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).is_success
        except httpx.TransportError:
            return False

    def submit(self, name: str, spec: TrainingSpec) -> str:
        """Through the API where it takes the spec's dataset; files of the server's own go straight to the store."""
        if spec.dataset.type == "digits":
            return self.client.submit(name, spec)
        while True:
            try:
                with self.database.write() as c:
                    # There already when the end of a transaction was not told.
                    job_id = c.execute(select(tables.jobs.c.id).where(tables.jobs.c.name == name)).scalar_one_or_none()
                    job_id = job_id or jobs.create(c, spec=spec, name=name).id
            except DatabaseUnavailable:
                time.sleep(0.1)
            else:
                return self.client.promise(name, job_id)

    def job(self, job_id: str) -> Job:
        with self.database.read() as c:
            return jobs.existing(c, job_id)

    def wait_for(self, job_id: str, seconds: float = 60.0, **values: object) -> Job:
        """Until the job's fields have these values."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if all(getattr(job, name) == value for name, value in values.items()):
                return job
            assert time.monotonic() < deadline, f"expected {values} within {seconds:g} s: {self.describe(job)}"
            time.sleep(0.02)

    def wait_for_step(self, job_id: str, step: int, seconds: float = 60.0) -> Job:
        """Until a checkpoint of this step, or a later one, is recorded."""
        deadline = time.monotonic() + seconds
        while (job := self.job(job_id)).checkpoint_step < step:
            assert time.monotonic() < deadline, f"no step {step} within {seconds:g} s: {self.describe(job)}"
            time.sleep(0.02)
        return job

    def num_unfinished(self) -> int:
        """How many jobs have not ended."""
        ended = [status for status in JobStatus if status.terminal]
        with self.database.read() as c:
            query = select(func.count()).select_from(tables.jobs).where(tables.jobs.c.status.not_in(ended))
            return int(c.execute(query).scalar_one())

    def drain(self, seconds: float = 120.0) -> None:
        """Until every promised job has ended, and the client has seen it."""
        deadline = time.monotonic() + seconds
        while waiting := [job_id for job_id in self.client.promises if not self.job(job_id).terminal]:
            left = f"{len(waiting)} jobs are left, such as {self.describe(self.job(waiting[0]))}"
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        self.client.finish()
        wait_until(lambda: not self.trainers, seconds=5)

    @property
    def trainers(self) -> dict[int, str]:
        """The job of each trainer by its process."""
        return trainers(self.data_dir)

    def trainer_of(self, job_id: str) -> int:
        """The job's only trainer, which must be there."""
        (pid,) = [pid for pid, trained in self.trainers.items() if trained == job_id]
        return pid

    def signal_trainer(self, job_id: str, number: signal.Signals) -> None:
        os.kill(self.trainer_of(job_id), number)

    def holder(self, job_id: str) -> Process:
        """The worker that has the job."""
        with self.database.read() as c:
            query = select(tables.workers.c.pid).where(tables.workers.c.id == self.job(job_id).worker_id)
            pid = c.execute(query).scalar_one()
        (holder,) = [worker for worker in self.workers if worker.pid == pid]
        return holder

    def reasons(self, job_id: str) -> list[str | None]:
        """Why each attempt at the job ended."""
        with self.database.read() as c:
            return [attempt.reason for attempt in attempts.list_for(c, job_id)]

    def kill_broker(self) -> None:
        assert self.valkey.process is not None
        self.valkey.process.kill()
        self.valkey.process.wait()

    @contextmanager
    def frozen_broker(self) -> Iterator[None]:
        assert self.valkey.process is not None
        self.valkey.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.valkey.process.send_signal(signal.SIGCONT)

    def wipe_broker(self) -> None:
        with redis.Redis(unix_socket_path=str(self.valkey.socket), password=self.valkey.password) as connection:
            connection.flushall()

    def describe(self, job: Job) -> str:
        """Where a job is, and what was said there."""
        return f"{job.name} ({job.id}) is {job.status} in attempt {job.attempt} of {job.worker_id}\n{self.logs()}"

    def said(self, text: str) -> bool:
        """Whether some process has ever written this."""
        return any(text in path.read_text() for path in self.folder.glob("*.txt"))

    def logs(self) -> str:
        """The end of what each process has written."""
        return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.txt")))

    def close(self) -> None:
        """Kill everything, and see that nothing is left."""
        processes = [self.api, *self.workers]
        members = {pid for process in processes for pid in descendants(process.pid)} | set(self.trainers)
        for process in processes:
            process.kill()
        for pid in self.trainers:  # of workers that were killed before
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(members), seconds=15)
        self.client.close()
        self.celery.close()
        self.database.close()
        self.valkey.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
