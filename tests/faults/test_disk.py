"""A disk that is full: database, queue, logs, checkpoints and artifacts all lie on it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from tests.faults.conftest import Settle, Start
from tests.integration.processes import wait_until

DISK_BYTES = 160 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk where the data directory will be."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    path = tmp_path / "data"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", path], check=False).returncode:
        pytest.skip("this container may not mount a tmpfs")
    yield path
    subprocess.run(["umount", path], check=True)


def fill(filler: Path) -> None:
    """Let a file take all the room there is."""
    with filler.open("ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_full_disk_costs_time_and_nothing_else(
    disk: Path, start: Start, mix: dict[str, TrainingSpec], long: TrainingSpec, settle: Settle
) -> None:
    installation = start()
    running = installation.submit("long/full disk", long)
    waiting = installation.submit("05-adam/full disk", mix["05-adam"])
    installation.wait_for_step(running, 1)
    trainer = installation.trainer_of(running)
    os.kill(trainer, signal.SIGSTOP)
    with ExitStack() as held:
        for path in (disk / "jobs" / running).glob("attempt-1/checkpoints/*/*"):
            held.enter_context(path.open("rb"))  # so that its removal makes no room
        fill(disk / "filler")
        os.kill(trainer, signal.SIGCONT)
        wait_until(lambda: trainer not in installation.trainers, seconds=60)
    (disk / "filler").unlink()
    settle(installation)
    assert installation.reasons(running) == ["disk_full", "trained"]
    assert installation.reasons(waiting) == ["trained"]
