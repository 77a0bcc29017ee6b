from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cnn.spec import TrainingSpec
from tests.worker.trainers import program
from worker.artifacts import attempt_folder, newest_checkpoint
from worker.disk import CHECKPOINTS, ROOM_BYTES, has_room, is_disk_full
from worker.jobs import Job, JobStatus, PauseReason
from worker.queue import make_celery
from worker.reconcile import Reconciler
from worker.settings import Settings, trainer_environment
from worker.starters import FreshStarter, Starter, WarmStarter
from worker.store import attempts, claims, intents, jobs
from worker.store.database import Database
from worker.supervisor import Supervisor

DISK_BYTES = 96 * 2**20
ONE_CHECKPOINT_FITS = 300_000
"""The decoded digits take 147 kB, the first checkpoint of the network below, whose weights are the best, 82 kB."""
ONE_COPY_FITS = 400_000
THE_IMAGES_DO_NOT_FIT = 60_000


class Disk:
    """A data folder on a small disk of its own, and jobs on it; the database is elsewhere."""

    def __init__(self, path: Path, database: Database, trainers: Starter) -> None:
        self.path = path
        self.settings = Settings(data_dir=path, heartbeat_seconds=0.2)
        self.database = database
        self.trainers = trainers

    def fill(self, left: int) -> None:
        free = os.statvfs(self.path)
        with (self.path / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left)

    def empty(self) -> None:
        (self.path / "filler").unlink()

    def create(self, spec: TrainingSpec) -> Job:
        with self.database.write() as c:
            return jobs.create(c, spec=spec, name=None)

    def run(self, job_id: str, starter: Starter | None = None) -> Job:
        with self.database.write() as c:
            job = attempts.claim(c, worker_id="w", device="cpu", job_id=job_id)
        assert job is not None
        Supervisor(
            self.database, self.settings, job, starter=starter or self.trainers, gpu=None, draining=threading.Event()
        ).run()
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        with self.database.read() as c:
            job = jobs.get(c, job_id)
        assert job is not None
        return job

    def look(self) -> None:
        """What the reconciler does from time to time."""
        Reconciler(self.database, make_celery(self.settings), self.settings).resume_where_room()

    def reasons(self, job_id: str) -> list[str | None]:
        with self.database.read() as c:
            return [attempt.reason for attempt in attempts.list_for(c, job_id)]


@pytest.fixture(scope="module")
def trainers() -> Iterator[Starter]:
    starter = WarmStarter(trainer_environment(threads=1, gpu=None))
    assert starter.ready(60)
    yield starter
    starter.close()


@pytest.fixture
def disk(tmp_path: Path, trainers: Starter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("a small disk can be mounted by root only")
    monkeypatch.setattr(claims, "ROOM_DELAY", claims.ROOM_DELAY * 0)
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("this container may not mount a tmpfs")
    database = Database(f"sqlite:///{tmp_path / 'epochd.db'}")
    database.migrate()
    yield Disk(path, database, trainers)
    database.close()
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def spec() -> TrainingSpec:
    return TrainingSpec.model_validate_json(
        """{"dataset": {"type": "digits"},
            "model": {"type": "layers", "layers": [
                {"type": "flatten"}, {"type": "linear", "out_features": 256}, {"type": "relu"},
                {"type": "linear", "out_features": 10}]},
            "optimizer": {"type": "sgd", "lr": 0.1},
            "training": {"epochs": 3}}"""
    )


def test_a_checkpoint_that_does_not_fit_pauses_the_job_until_there_is_room(disk: Disk, spec: TrainingSpec) -> None:
    """The first one fits. The job goes on by itself from there, and ends as if the disk had never been full."""
    job = disk.create(spec)
    disk.fill(ONE_CHECKPOINT_FITS)
    paused = disk.run(job.id)
    assert (paused.status, paused.pause_reason, paused.error) == (JobStatus.PAUSED, PauseReason.DISK_FULL, None)
    assert (paused.fruitless_attempts, disk.reasons(job.id)) == (0, ["disk_full"])
    assert paused.checkpoint_step > 0
    found = newest_checkpoint(disk.path, job.id)
    assert found is not None
    assert found[0] == paused.checkpoint_step
    left = [path.name for path in attempt_folder(disk.path, job.id, 1).checkpoints.iterdir()]
    assert left == [found[1].name], "the first one, and nothing that would fill the disk"
    disk.look()
    assert disk.job(job.id).status == JobStatus.PAUSED
    disk.empty()
    disk.look()
    assert disk.job(job.id).status == JobStatus.QUEUED
    resumed = disk.run(job.id)
    assert (resumed.status, disk.reasons(job.id)) == (JobStatus.SUCCEEDED, ["disk_full", "trained"])
    undisturbed = disk.run(disk.create(spec).id)
    assert resumed.result is not None
    assert undisturbed.result is not None
    assert resumed.result.sha256 == undisturbed.result.sha256


def test_a_disk_without_room_for_the_attempt_pauses_the_job(disk: Disk, spec: TrainingSpec) -> None:
    job = disk.create(spec)
    disk.fill(0)
    paused = disk.run(job.id)
    assert (paused.status, paused.pause_reason, paused.attempt) == (JobStatus.PAUSED, PauseReason.DISK_FULL, 1)


def test_images_that_do_not_fit_pause_the_job_and_leave_nothing(disk: Disk, spec: TrainingSpec) -> None:
    job = disk.create(spec)
    disk.fill(THE_IMAGES_DO_NOT_FIT)
    assert disk.run(job.id).pause_reason == PauseReason.DISK_FULL
    assert not [path for path in (disk.path / "datasets").rglob("*") if path.is_file()]


def test_a_log_line_that_does_not_fit_pauses_the_job(disk: Disk, spec: TrainingSpec) -> None:
    """The real trainer has its log on the full disk, and says so through the pipe."""
    job = disk.create(spec)
    fill = """
import os, sys
sys.argv = ["trainer"]
from worker import trainer
def tell(*_):
    while True:
        sys.stdout.write("x" * 4095 + "\\n")
        sys.stdout.flush()
trainer._tell = tell
trainer.main()
"""
    disk.fill(ONE_CHECKPOINT_FITS)
    paused = disk.run(job.id, FreshStarter([*program("")[:2], fill]))
    assert (paused.status, paused.pause_reason) == (JobStatus.PAUSED, PauseReason.DISK_FULL)


def test_artifacts_that_cannot_be_stored_pause_the_job_and_leave_nothing(disk: Disk, spec: TrainingSpec) -> None:
    large = """
(artifacts / "model.safetensors").write_bytes(bytes(300_000))
send("artifact", name="model.safetensors", path=str(artifacts / "model.safetensors"),
     media_type="application/octet-stream", step=20)
send("result", test_loss=0.5, test_accuracy=0.75, weights="best", epoch=2, step=20)
"""
    job = disk.create(spec)
    disk.fill(ONE_COPY_FITS)
    assert disk.run(job.id, FreshStarter(program(large))).pause_reason == PauseReason.DISK_FULL
    assert not [path for path in (disk.path / "blobs").rglob("*") if path.is_file() and path.stat().st_size]


def test_a_user_who_pauses_or_cancels_meanwhile_has_the_last_word(disk: Disk, spec: TrainingSpec) -> None:
    first, second = disk.create(spec), disk.create(spec)
    disk.fill(0)
    for job in (first, second):
        disk.run(job.id)
    with disk.database.write() as c:
        assert intents.request_pause(c, first.id).pause_reason == PauseReason.USER
        intents.request_cancel(c, second.id)
    disk.empty()
    disk.look()
    assert [disk.job(job.id).status for job in (first, second)] == [JobStatus.PAUSED, JobStatus.CANCELLED]


def test_there_is_room_when_some_checkpoints_and_a_margin_are_free(disk: Disk) -> None:
    folder = disk.path / "jobs/job/attempt-1/checkpoints/step-7"
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(bytes(2**20))
    needed = ROOM_BYTES + CHECKPOINTS * 2**20
    disk.fill(needed)
    assert has_room(disk.path, "job")
    disk.empty()
    disk.fill(needed - 2**16)
    assert not has_room(disk.path, "job")
    assert has_room(disk.path, "a job without checkpoints")


def test_errors_of_a_full_disk_are_known_by_their_number_or_their_text(disk: Disk) -> None:
    assert is_disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not is_disk_full(OSError(errno.ENOENT, "No such file or directory"))
    disk.fill(100_000)
    with pytest.raises(OSError, match="written") as caught:
        np.save(disk.path / "array.npy", np.zeros(100_000))
    assert is_disk_full(caught.value)
