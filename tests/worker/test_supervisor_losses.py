"""What becomes of a job when its trainer, its worker or its database is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.integration.processes import alive, wait_until
from tests.worker.bench import KEEPS_REQUEST, Bench
from tests.worker.conftest import GREEDY
from tests.worker.trainers import POLITE, RESULT, STUBBORN, SUCCEEDS
from worker.artifacts import remove_attempts
from worker.jobs import Fenced, JobStatus
from worker.logs import log_path
from worker.starters import WarmStarter
from worker.store import artifacts, attempts, events, metrics, retries
from worker.store.retries import RetryPolicy


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


def test_a_launcher_that_dies_while_it_forks_is_a_death_like_any_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = "import socket; worker = socket.socket(fileno=3); worker.send(b'ready'); worker.recv(1)"
    monkeypatch.setattr("worker.starters.LAUNCHER", (sys.executable, "-c", dies))
    starter = WarmStarter({})
    for _ in range(3):
        wait_until(lambda: starter.ready(0.1))
        bench.supervisor("", starter).run()
    starter.close()
    error = bench.job.error
    assert error is not None
    assert (bench.job.status, error.code, error.retryable) == (JobStatus.FAILED, "trainer_crashed", True)
    assert "the launcher has died while it forked the trainer" in error.message
    assert {attempt.reason for attempt in bench.attempts()} == {"trainer_crashed"}


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


def test_a_worker_that_wakes_up_when_its_files_are_gone_says_that_it_has_lost_the_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleeps(_log: Path) -> tuple[str, ...]:
        """Meanwhile the job is taken back, and finished elsewhere."""
        with bench.database.write() as c:
            (held,) = retries.running(c)
            policy = RetryPolicy(max_fruitless=3, backoff_seconds=0.0)
            retries.take_back(c, held.job_id, held.token, held.counter, policy=policy)
        remove_attempts(bench.settings.data_dir, bench.job_id)
        return ()

    monkeypatch.setattr("worker.supervisor.tail", sleeps)
    with pytest.raises(Fenced):
        bench.run(SUCCEEDS)
    assert (bench.job.status, bench.job.attempt) == (JobStatus.QUEUED, 1)


@pytest.mark.usefixtures("in_small_cgroup")
def test_a_job_that_the_kernel_kills_for_lack_of_memory_says_so(bench: Bench) -> None:
    statuses = [bench.run(GREEDY).status for _ in range(3)]
    assert statuses == [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FAILED]
    error = bench.job.error
    assert error is not None
    assert (error.code, error.blame, error.pointer) == ("out_of_memory", "capacity", "/training/batch_size")
    assert "predicted were" in error.message
    assert error.message.endswith(" of 512 MB")
    assert error.hint is not None


def test_what_the_kernel_kills_elsewhere_is_no_lack_of_memory_here(bench: Bench, small_cgroup: Path) -> None:
    other = f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write('0'); {GREEDY}"
    bench.run(f"subprocess.run([sys.executable, '-c', {other!r}]); os.kill(os.getpid(), signal.SIGKILL)")
    assert [attempt.reason for attempt in bench.attempts()] == ["killed_by_signal"]


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
