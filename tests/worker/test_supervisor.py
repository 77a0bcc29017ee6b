from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from cnn.spec import TrainingSpec
from tests.integration.processes import alive, descendants, wait_until
from tests.worker.trainers import POLITE, RESULT, STUBBORN, SUCCEEDS, WITH_GRANDCHILDREN, program
from worker.artifacts import BlobStore, attempt_folder
from worker.deletion import delete_job
from worker.jobs import Fenced, Job, JobStatus
from worker.logs import log_path
from worker.settings import Settings
from worker.starters import FreshStarter
from worker.store import artifacts, attempts, events, intents, jobs, metrics, retries, tables
from worker.store.database import Database
from worker.store.retries import RetryPolicy
from worker.supervisor import Supervisor

KEEPS_REQUEST = "pathlib.Path(request['dataset_dir'], 'request.json').write_text(json.dumps(request))\n"


@dataclass
class Bench:
    """One job, and what a worker needs to supervise it."""

    database: Database
    settings: Settings
    job_id: str
    draining: threading.Event = field(default_factory=threading.Event)

    def claim(self) -> Job:
        with self.database.write() as c:
            job = attempts.claim(c, worker_id="w", device="cpu")
        assert job is not None
        return job

    def supervisor(self, body: str) -> Supervisor:
        return Supervisor(
            self.database,
            self.settings,
            self.claim(),
            starter=FreshStarter(program(body)),
            gpu=None,
            draining=self.draining,
        )

    def run(self, body: str) -> Job:
        self.supervisor(body).run()
        return self.job

    @contextmanager
    def running(self, body: str) -> Iterator[set[int]]:
        """Supervise in a thread, from when the trainer has started; gives the processes that then exist."""
        before = descendants(os.getpid())
        supervisor = self.supervisor(body)
        caught: list[BaseException] = []

        def run() -> None:
            try:
                supervisor.run()
            except Fenced as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: self.job.determinism is not None)
        yield descendants(os.getpid()) - before
        thread.join(20)
        assert not thread.is_alive()

    @property
    def job(self) -> Job:
        with self.database.read() as c:
            job = jobs.get(c, self.job_id)
        assert job is not None
        return job

    def request(self) -> dict[str, Any]:
        """What the newest trainer was asked, if it keeps that."""
        request: dict[str, Any] = json.loads((self.settings.data_dir / "request.json").read_text())
        return request

    def cancel(self, now: bool = False) -> None:
        with self.database.write() as c:
            intents.request_cancel(c, self.job_id, now)

    def pause(self) -> None:
        with self.database.write() as c:
            intents.request_pause(c, self.job_id)

    def attempts(self) -> list[attempts.Attempt]:
        with self.database.read() as c:
            return attempts.list_for(c, self.job_id)


@pytest.fixture
def bench(tmp_path: Path, spec: TrainingSpec) -> Iterator[Bench]:
    settings = Settings(
        data_dir=tmp_path, heartbeat_seconds=0.2, cancel_grace_seconds=1, drain_grace_seconds=1, retry_backoff_seconds=0
    )
    database = Database(settings.resolved_database_url())
    database.migrate()
    with database.write() as c:
        job = jobs.create(c, spec=spec, name=None)
    yield Bench(database, settings, job.id)
    database.close()


def test_a_job_that_succeeds(bench: Bench) -> None:
    job = bench.run(SUCCEEDS)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert job.status == JobStatus.SUCCEEDED
    assert job.result is not None
    assert (job.result.test_accuracy, job.result.weights, job.result.sha256) == (0.75, "best", sha256)
    assert (job.phase, job.error, job.dataset_digest, job.determinism) == (None, None, "sha256:0", {"device": "cpu"})
    assert job.progress is not None
    assert (job.progress.step, job.progress.fraction) == (20, 1.0)
    assert job.latest_metrics == {"val_loss": None}
    assert job.best is not None
    assert job.best.step == 10
    (attempt,) = bench.attempts()
    assert (attempt.exit_code, attempt.reason, attempt.last_step) == (0, "trained", 20)
    with bench.database.read() as c:
        (file,) = artifacts.list_for(c, job.id)
        told = [event.type for event in events.after(c, job.id, 0, 99)]
        assert [point.key for point in metrics.points(c, job.id, limit=9)] == ["seconds", "val_loss"] * 2
    assert BlobStore(bench.settings.data_dir).path(file.sha256).read_bytes() == b"weights"
    assert {"job.metric", "job.progress", "job.warning", "job.artifact"} <= set(told)
    assert told[-1] == "job.status"


def test_a_job_that_has_run_too_long_stops_and_fails_and_a_retry_may_run_as_long_again(bench: Bench) -> None:
    with bench.database.write() as c:
        c.execute(update(tables.jobs).values(max_runtime_seconds=2, runtime_seconds=1.5))
    job = bench.run(POLITE)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.blame, job.error.retryable) == ("max_runtime_exceeded", "user", True)
    assert job.runtime_seconds >= 2
    (attempt,) = bench.attempts()
    assert (attempt.exit_code, attempt.reason) == (75, "max_runtime_exceeded")
    with bench.database.write() as c:
        assert intents.retry(c, job.id).runtime_seconds == 0
    assert bench.run(SUCCEEDS).status == JobStatus.SUCCEEDED


def test_a_job_without_time_left_stops_at_once(bench: Bench) -> None:
    with bench.database.write() as c:
        c.execute(update(tables.jobs).values(max_runtime_seconds=2, runtime_seconds=3.0))
    assert bench.run(POLITE).status == JobStatus.FAILED


def test_a_full_disk_pauses_the_job_and_is_nobodys_fault(bench: Bench) -> None:
    full = 'send("error", code="disk_full", message="", blame="capacity", hint=None); sys.exit(1)'
    job = bench.run(full)
    assert (job.status, job.pause_reason, job.error, job.fruitless_attempts) == ("paused", "disk_full", None, 0)
    (attempt,) = bench.attempts()
    assert (attempt.exit_code, attempt.reason) == (1, "disk_full")


def test_heartbeats_rise_while_a_trainer_runs(bench: Bench) -> None:
    with bench.running(POLITE):
        first = bench.job.heartbeat
        wait_until(lambda: bench.job.heartbeat >= first + 2)
        bench.cancel()


@pytest.mark.parametrize("body", [POLITE, STUBBORN, WITH_GRANDCHILDREN])
def test_a_cancelled_job_leaves_no_process(bench: Bench, body: str) -> None:
    with bench.running(body) as processes:
        assert processes
        bench.cancel()
    assert not alive(processes)
    assert bench.job.status == JobStatus.CANCELLED


@pytest.mark.parametrize("body", [POLITE, STUBBORN, WITH_GRANDCHILDREN])
def test_a_paused_job_leaves_no_process_and_goes_on_later(bench: Bench, body: str) -> None:
    with bench.running(body) as processes:
        bench.pause()
    assert not alive(processes)
    assert (bench.job.status, bench.job.fruitless_attempts) == (JobStatus.PAUSED, 0)
    assert bench.attempts()[0].reason == "paused"
    with bench.database.write() as c:
        intents.resume(c, bench.job_id)
    job = bench.run(SUCCEEDS)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)


def test_a_cancel_after_a_pause_wins(bench: Bench) -> None:
    with bench.running(STUBBORN):
        bench.pause()
        bench.cancel()
    assert bench.job.status == JobStatus.CANCELLED


def test_a_cancel_that_cannot_wait_kills_at_once(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"cancel_grace_seconds": 60})
    with bench.running(STUBBORN) as processes:
        bench.cancel()
        bench.cancel(now=True)
    assert not alive(processes)
    assert bench.job.status == JobStatus.CANCELLED
    assert bench.attempts()[0].signal == signal.SIGKILL


def test_a_job_that_begins_anew_uses_no_older_checkpoint(bench: Bench) -> None:
    bench.run("""
(pathlib.Path(request["checkpoints_dir"]) / "step-10").mkdir()
send("metrics", epoch=1, step=10, values={"val_loss": 0.5}, timings={})
send("error", code="diverged", message="step 11", blame="user", hint=None)
os._exit(1)
""")
    with bench.database.write() as c:
        intents.retry(c, bench.job_id, scratch=True)
    bench.run(KEEPS_REQUEST + RESULT)
    assert bench.request()["resume_from"] is None
    with bench.database.read() as c:
        assert metrics.points(c, bench.job_id, limit=9) == []


def test_a_deleted_job_leaves_no_file(bench: Bench) -> None:
    bench.run(SUCCEEDS)
    with bench.database.read() as c:
        (file,) = artifacts.list_for(c, bench.job_id)
    blob = BlobStore(bench.settings.data_dir).path(file.sha256)
    assert blob.exists()
    delete_job(bench.database, bench.settings.data_dir, bench.job_id)
    assert not blob.exists()
    assert not attempt_folder(bench.settings.data_dir, bench.job_id, 1).path.parent.exists()


def test_a_worker_that_stops_gives_its_job_back(bench: Bench) -> None:
    with bench.running(POLITE) as processes:
        bench.draining.set()
    assert not alive(processes)
    job = bench.job
    assert (job.status, job.fruitless_attempts, job.error) == (JobStatus.QUEUED, 0, None)
    assert bench.attempts()[0].reason == "worker_drained"


def test_a_killed_trainer_sends_its_job_back_with_a_clear_reason(bench: Bench) -> None:
    with bench.running(POLITE) as processes:
        (pid,) = processes
        os.kill(pid, signal.SIGKILL)
    assert (bench.job.status, bench.job.fruitless_attempts) == (JobStatus.QUEUED, 1)
    (attempt,) = bench.attempts()
    assert (attempt.signal, attempt.reason) == (9, "killed_by_signal")


def test_a_trainer_that_always_crashes_fails_its_job(bench: Bench) -> None:
    body = "print('Traceback: it broke', file=sys.stderr); os._exit(3)"
    statuses = [bench.run(body).status for _ in range(3)]
    assert statuses == [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FAILED]
    error = bench.job.error
    assert error is not None
    assert (error.code, error.blame) == ("trainer_crashed", "platform")
    assert error.log_tail[-1] == "Traceback: it broke"


def test_an_error_that_the_trainer_reports_fails_the_job_at_once(bench: Bench) -> None:
    body = """
(artifacts / "last_good.safetensors").write_bytes(b"good")
send("artifact", name="last_good.safetensors", path=str(artifacts / "last_good.safetensors"),
     media_type="application/octet-stream", step=2)
send("error", code="diverged", message="step 3, layer conv1", blame="user", hint="lower optimizer.lr")
os._exit(1)
"""
    job = bench.run(body)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.message, job.error.blame) == ("diverged", "step 3, layer conv1", "user")
    with bench.database.read() as c:
        assert [file.name for file in artifacts.list_for(c, job.id)] == ["last_good.safetensors"]


def test_the_next_attempt_resumes_from_the_newest_checkpoint(bench: Bench) -> None:
    folder = bench.settings.data_dir / "jobs" / bench.job_id / "attempt-1" / "checkpoints"
    first = f"""
(pathlib.Path(request["checkpoints_dir"]) / "step-10").mkdir()
send("metrics", epoch=1, step=10, values={{"val_loss": 0.5}}, timings={{}})
send("checkpoint", epoch=1, step=10, path="{folder}/step-10")
send("metrics", epoch=2, step=20, values={{"val_loss": 0.1}}, timings={{}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    job = bench.run(first)
    assert (job.status, job.checkpoint_step, job.fruitless_attempts) == (JobStatus.QUEUED, 10, 0)
    bench.run(KEEPS_REQUEST + "assert os.path.isdir(request['resume_from'])" + RESULT)
    assert bench.request()["resume_from"] == str(folder.parents[1] / "attempt-2" / "checkpoints" / "step-10")
    assert not folder.exists()
    assert [attempt.first_step for attempt in bench.attempts()] == [0, 10]
    with bench.database.read() as c:
        assert [point.step for point in metrics.points(c, bench.job_id, limit=9)] == [10]


def test_a_job_that_was_taken_back_is_let_go(bench: Bench) -> None:
    with bench.running(STUBBORN) as processes:
        held = bench.job
        with bench.database.write() as c:
            attempts.heartbeat(c, held.id, held.token)
            counter = retries.running(c)[0].counter
            policy = RetryPolicy(max_fruitless=3, backoff_seconds=0.0)
            assert retries.take_back(c, held.id, held.token, counter, policy=policy) is not None
        taken = bench.job
    assert not alive(processes)
    assert bench.job == taken


def test_a_job_that_the_kernel_kills_for_lack_of_memory_says_so(bench: Bench, small_cgroup: Path) -> None:
    body = f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write('0'); bytearray(256 * 2**20)"
    statuses = [bench.run(body).status for _ in range(3)]
    assert statuses == [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FAILED]
    error = bench.job.error
    assert error is not None
    assert (error.code, error.blame, error.pointer) == ("out_of_memory", "capacity", "/training/batch_size")
    assert "predicted were" in error.message
    assert error.hint is not None
    assert error.hint.startswith("training.batch_size ")


def test_an_outage_of_the_database_costs_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.store.database.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("worker.spool.MAX_LINES_IN_MEMORY", 20)
    monkeypatch.setattr("worker.recording.MAX_WAITING", 30)
    bench.database.close()  # connections that are opened from now on wait less
    go, finish = bench.settings.data_dir / "go", bench.settings.data_dir / "finish"
    body = f"""
send("started", pid=os.getpid(), threads=1, device="cpu", determinism={{}})
while not os.path.exists({str(go)!r}):
    time.sleep(0.01)
for step in range(1, 301):
    send("metrics", epoch=step, step=step, values={{"val_loss": 1 / step}}, timings={{}})
    while step == 200 and not os.path.exists({str(finish)!r}):
        time.sleep(0.01)
{RESULT}
"""
    with bench.running(body) as processes:
        other = sqlite3.connect(bench.settings.data_dir / "epochd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        go.touch()
        wait_until(lambda: "trains on unrecorded" in caplog.text)
        finish.touch()
        wait_until(lambda: not alive(processes) and "waits for the database" in caplog.text)
        other.execute("ROLLBACK")
        other.close()
    assert (bench.job.status, bench.job.attempt) == (JobStatus.SUCCEEDED, 1)
    with bench.database.read() as c:
        points = metrics.points(c, bench.job_id, limit=999)
        told = [event for event in events.after(c, bench.job_id, 0, 999) if event.type == "job.metric"]
    assert [(point.step, point.value) for point in points] == [(step, 1 / step) for step in range(1, 301)]
    assert [event.data["step"] for event in told] == list(range(1, 301))


def test_the_log_has_the_last_line_before_a_kill(bench: Bench) -> None:
    job = bench.run("print('last words'); os.kill(os.getpid(), signal.SIGKILL)")
    assert job.status == JobStatus.QUEUED
    assert log_path(bench.settings.data_dir, bench.job_id).read_text().endswith("\nlast words\n")


def test_the_log_has_what_the_trainer_printed(bench: Bench) -> None:
    bench.run(SUCCEEDS + "print('hello')")
    lines = log_path(bench.settings.data_dir, bench.job_id).read_text().splitlines()
    assert lines[0].startswith("--- attempt 1, ")
    assert lines[1:] == ["hello"]
