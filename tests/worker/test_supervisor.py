from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import pytest
from sqlalchemy import update

from tests.integration.processes import alive, wait_until
from tests.worker.bench import KEEPS_REQUEST, Bench
from tests.worker.trainers import POLITE, RESULT, STUBBORN, SUCCEEDS, WITH_GRANDCHILDREN
from worker.artifacts import BlobStore, attempt_folder
from worker.deletion import delete_job
from worker.jobs import JobStatus
from worker.store import artifacts, events, intents, metrics, tables


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


def test_what_a_young_attempt_tells_is_recorded_before_the_next_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.supervisor.LOOP_SECONDS", 60)
    go = bench.settings.data_dir / "go"
    with bench.running(f"""
send("started", pid=os.getpid(), threads=1, device="cpu", determinism={{"device": "cpu"}})
send("metrics", epoch=1, step=10, values={{"val_loss": 0.5}}, timings={{}})
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.01)
{SUCCEEDS}
"""):
        wait_until(lambda: bench.job.latest_metrics == {"val_loss": 0.5})
        go.touch()
    assert bench.job.status == JobStatus.SUCCEEDED


def test_heartbeats_rise_while_a_trainer_runs(bench: Bench) -> None:
    with bench.running(POLITE):
        first = bench.job.heartbeat
        wait_until(lambda: bench.job.heartbeat >= first + 2)
        bench.cancel()


def test_heartbeats_rise_while_files_are_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a large network, on a slow disk: it must not look lost at its end, attempt after attempt."""
    put = BlobStore.put

    def slow(store: BlobStore, source: Path) -> tuple[str, int]:
        first = bench.job.heartbeat
        wait_until(lambda: bench.job.heartbeat >= first + 2)
        return put(store, source)

    monkeypatch.setattr(BlobStore, "put", slow)
    assert bench.run(SUCCEEDS).status == JobStatus.SUCCEEDED


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
