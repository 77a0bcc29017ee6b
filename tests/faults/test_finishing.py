"""SIGKILL of a trainer at every step between its last epoch and its result."""

from __future__ import annotations

import hashlib
import os
import signal
from functools import partial
from pathlib import Path

from cnn.spec import TrainingSpec
from tests.faults.conftest import Settle, Start
from tests.faults.installation import Installation
from tests.faults.reference import undisturbed
from tests.integration.processes import wait_until
from worker.artifacts import attempt_folder
from worker.store import artifacts, attempts


def with_gan(mix: dict[str, TrainingSpec]) -> str:
    """The job that makes every file there is."""
    return next(name for name, spec in mix.items() if any(entry.type == "gan" for entry in spec.augmentation))


def in_order(folder: Path) -> list[Path]:
    """The files that a run has made for its user, the first one first."""
    return sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime_ns)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def holds(folder: Path, files: set[str]) -> bool:
    return files <= names(folder)


def block(installation: Installation, job_id: str, attempt: int, name: str) -> None:
    """Let an attempt that has not begun get as far as this file and no further.

    A file is written under a name with a dot. Where a pipe has that name, the trainer waits for somebody who reads it.
    """
    folder = attempt_folder(installation.data_dir, job_id, attempt)
    folder.create()
    os.mkfifo(folder.artifacts / f".{name}")


def test_a_trainer_killed_before_each_of_its_files_makes_all_of_them_without_another_step(
    start: Start, mix: dict[str, TrainingSpec], settle: Settle, tmp_path: Path
) -> None:
    name = with_gan(mix)
    spec = mix[name]
    reference = tmp_path / "reference"
    reference.mkdir()
    undisturbed(spec, reference)
    files = in_order(reference)
    assert {"model.safetensors", "most_confused.png", "bundle.tar", "report.html", "gan_samples.png"} <= {
        path.name for path in files
    }
    installation = start(max_fruitless_attempts="100", retry_backoff_seconds="0", poll_seconds="0.2")
    (worker,) = installation.workers
    worker.stop()
    job_id = installation.submit(f"{name}/finishing", spec)
    for attempt, path in enumerate(files, start=1):
        block(installation, job_id, attempt, path.name)
    worker.start()
    for attempt, path in enumerate(files, start=1):
        folder = attempt_folder(installation.data_dir, job_id, attempt).artifacts
        done = {earlier.name for earlier in files[: attempt - 1]}
        installation.wait_for(job_id, attempt=attempt, phase="exporting")
        wait_until(partial(holds, folder, done), seconds=30)
        installation.signal_trainer(job_id, signal.SIGKILL)
        installation.wait_for(job_id, attempt=attempt + 1)
        assert names(folder) == done | {f".{path.name}"}
    settle(installation)
    with installation.database.read() as c:
        steps = [(one.first_step, one.last_step) for one in attempts.list_for(c, job_id)]
        made = {file.name: file.sha256 for file in artifacts.list_for(c, job_id)}
    assert installation.reasons(job_id) == ["killed_by_signal"] * len(files) + ["trained"]
    last_step = steps[0][1]
    assert steps[1:] == [(last_step, last_step)] * len(files)
    assert made == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
