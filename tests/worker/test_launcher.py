"""A real launcher and the real trainers that it forks."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnn.spec import TrainingSpec
from tests.integration.processes import alive, children, wait_until
from worker.process import TrainerProcess
from worker.settings import trainer_environment
from worker.starters import FreshStarter, Starter, StartFailed, WarmStarter
from worker.store.attempts import UNSEEN, Exit

START_SECONDS = 60.0
Train = Callable[..., TrainerProcess]


@pytest.fixture(scope="module")
def starter() -> Iterator[WarmStarter]:
    starter = WarmStarter(trainer_environment(threads=1, gpu=None))
    yield starter
    starter.close()


@pytest.fixture
def train(starter: WarmStarter, tmp_path: Path, spec: TrainingSpec) -> Train:
    """Starts a trainer, in a folder of its own, when the launcher is ready."""

    def train(*, starter: Starter = starter, name: str = "run", epochs: int = 2, threads: int = 1) -> TrainerProcess:
        wait_until(lambda: starter.ready(0.1), seconds=START_SECONDS)
        folder = tmp_path / name
        folder.mkdir()
        changed = spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": epochs})})
        request = {
            "spec": changed.model_dump(mode="json"),
            "dataset_dir": str(folder),
            "checkpoints_dir": str(folder / "checkpoints"),
            "artifacts_dir": str(folder / "artifacts"),
            "init_weights": None,
            "resume_from": None,
            "threads": threads,
            "device": "cpu",
            "native": False,
        }
        environment = trainer_environment(threads=threads, gpu=None)
        return TrainerProcess(starter, environment=environment, log=folder / "log.txt", attempt=1, request=request)

    return train


def wait_for(trainer: TrainerProcess, type: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def came() -> bool:
        found.extend(message for message in trainer.take() if message["type"] == type)
        return bool(found)

    wait_until(came, seconds=START_SECONDS)
    return found[0]


def launcher() -> int:
    """The only process that the tests of this module have started and that is still there."""
    (pid,) = [pid for pid in children()[os.getpid()] if "worker.launcher" in command(pid)]
    return pid


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_the_launcher_is_a_single_thread_before_and_after_it_has_forked(train: Train) -> None:
    with train() as trainer:
        assert trainer.wait(START_SECONDS)
    assert trainer.exit == Exit(exit_code=0)
    assert len(os.listdir(f"/proc/{launcher()}/task")) == 1


def test_a_forked_trainer_delivers_the_same_bytes_as_a_fresh_one(train: Train, tmp_path: Path) -> None:
    digests = {}
    for name, starter in {"warm": {}, "fresh": {"starter": FreshStarter()}}.items():
        with train(name=name, threads=2, **starter) as trainer:
            assert wait_for(trainer, "started")["determinism"]["threads"] == 2
            assert trainer.wait(START_SECONDS)
        assert trainer.exit == Exit(exit_code=0)
        weights = tmp_path / name / "artifacts" / "model.safetensors"
        digests[name] = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digests["warm"] == digests["fresh"]


def test_a_forked_trainer_is_one_of_its_own(train: Train, tmp_path: Path) -> None:
    with train(epochs=100_000) as trainer:
        wait_for(trainer, "metrics")
        assert os.getsid(trainer.pid) == os.getpgid(trainer.pid) == trainer.pid
        assert Path(f"/proc/{trainer.pid}/comm").read_text() == "epochd-trainer\n"
        opened = {int(name) for name in os.listdir(f"/proc/{trainer.pid}/fd")}
        assert {0, 1, 2, 3} <= opened
        inherited = {os.readlink(f"/proc/{trainer.pid}/fd/{number}") for number in opened - {0, 1, 2, 3}}
        assert not [path for path in inherited if path.startswith(("socket:", "anon_inode:"))]
        trainer.terminate()
        assert trainer.wait(20)
    assert trainer.exit == Exit(exit_code=75)
    assert (tmp_path / "run" / "log.txt").read_text().splitlines()[1].startswith("epoch 1 ")


def test_trainers_run_beside_each_other_and_leave_nothing(train: Train) -> None:
    with train(name="first", epochs=100_000) as first, train(name="second", epochs=100_000) as second:
        wait_for(first, "metrics")
        wait_for(second, "metrics")
        assert set(children()[launcher()]) == {first.pid, second.pid}
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait(20)
        assert alive({second.pid})
    assert (first.exit, second.exit) == (Exit(signal=signal.SIGKILL), Exit(signal=signal.SIGKILL))
    # Not even zombies: they are the launcher's to reap, and it has their descriptors.
    wait_until(lambda: not Path(f"/proc/{second.pid}").exists() and not Path(f"/proc/{first.pid}").exists())
    opened = len(os.listdir(f"/proc/{launcher()}/fd"))
    with train(name="third") as third:
        assert third.wait(START_SECONDS)
    wait_until(lambda: len(os.listdir(f"/proc/{launcher()}/fd")) == opened)


def test_trainers_end_with_the_launcher_and_the_next_one_begins(train: Train) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with train(epochs=100_000) as trainer:
        wait_for(trainer, "metrics")
        killed = launcher()
        os.kill(killed, signal.SIGKILL)
        assert trainer.wait(20)
    assert trainer.exit == UNSEEN
    wait_until(lambda: not alive({trainer.pid}))
    with train(name="next") as trainer:
        assert trainer.wait(START_SECONDS)
    assert trainer.exit == Exit(exit_code=0)
    assert launcher() != killed
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_frozen_launcher_is_replaced(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.starters.FORK_SECONDS", 0.5)
    with train(name="warms up") as trainer:
        assert trainer.wait(START_SECONDS)
    frozen = launcher()
    os.kill(frozen, signal.SIGSTOP)
    with pytest.raises(StartFailed, match=r"forked no trainer for 0\.5 s"):
        train(name="not started")
    assert not alive({frozen})
    with train() as trainer:
        assert trainer.wait(START_SECONDS)
    assert trainer.exit == Exit(exit_code=0)


def test_a_launcher_that_is_closed_takes_its_trainers_along(train: Train, starter: WarmStarter) -> None:
    with train(epochs=100_000) as trainer:
        wait_for(trainer, "metrics")
        os.kill(trainer.pid, signal.SIGSTOP)  # it cannot hear that its pipe is closed
        gone = launcher()
        starter.close()
        assert not alive({gone})
        assert trainer.wait(20)
    wait_until(lambda: not alive({trainer.pid}))


def test_a_launcher_that_cannot_import_is_not_ready(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("worker.starters.LAUNCHER", ("/bin/sh", "-c", "echo broken >&2; exit 1"))
    starter = WarmStarter({})
    assert not starter.ready(10)
    assert not starter.ready(10)
    starter.close()
    assert capfd.readouterr().err.count("broken") == 2
