from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.worker.trainers import program
from worker.devices import Capacity, CapacityError, find_capacity, find_domains
from worker.settings import Settings, trainer_environment
from worker.starters import FreshStarter


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 cores whose `nvidia-smi` the test writes."""
    monkeypatch.setattr("worker.devices.num_cores", lambda: 8)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def install_smi(machine: Path, script: str) -> None:
    program = machine / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


TWO_GPUS = 'echo "GPU 0: NVIDIA H100 (UUID: GPU-a)"; echo "GPU 1: NVIDIA H100 (UUID: GPU-b)"'


@pytest.mark.parametrize(
    ("script", "slots", "threads", "expected"),
    [
        (None, None, None, Capacity(1, 8, ())),
        (None, 3, None, Capacity(3, 2, ())),
        (None, 2, 4, Capacity(2, 4, ())),
        ("exit 9", None, None, Capacity(1, 8, ())),
        ('echo "No devices were found"', None, None, Capacity(1, 8, ())),
        (TWO_GPUS, None, None, Capacity(2, 4, ("0", "1"))),
        (TWO_GPUS, 4, None, Capacity(4, 2, ("0", "1"))),
    ],
)
def test_capacity(
    machine: Path, script: str | None, slots: int | None, threads: int | None, expected: Capacity
) -> None:
    if script is not None:
        install_smi(machine, script)
    assert find_capacity(Settings(slots=slots, threads=threads)) == expected


@pytest.mark.parametrize(("visible", "gpus"), [("1", ("1",)), ("GPU-b, GPU-a", ("GPU-b", "GPU-a")), ("", ())])
def test_only_visible_gpus_are_used(
    machine: Path, monkeypatch: pytest.MonkeyPatch, visible: str, gpus: tuple[str, ...]
) -> None:
    install_smi(machine, TWO_GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_capacity(Settings()).gpus == gpus


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("slots", "threads"), [(9, None), (3, 3), (None, 9)])
def test_more_threads_than_cores_are_refused(slots: int | None, threads: int | None) -> None:
    with pytest.raises(CapacityError, match="exceed the 8 cores"):
        find_capacity(Settings(slots=slots, threads=threads))


def test_slots_share_gpus_in_turn() -> None:
    assert [Capacity(4, 1, ("0", "1")).gpu_of(slot) for slot in range(4)] == ["0", "1", "0", "1"]
    assert Capacity(1, 1, ()).gpu_of(0) is None


def test_slots_of_several_gpus_share_none(machine: Path) -> None:
    install_smi(machine, f"{TWO_GPUS}; {TWO_GPUS}")
    capacity = find_capacity(Settings(gpus_per_slot=2))
    assert (capacity.slots, capacity.threads) == (2, 4)
    assert [capacity.gpu_of(slot) for slot in range(3)] == ["0,1", "2,3", "0,1"]
    with pytest.raises(CapacityError, match="has 5 GPUs"):
        find_capacity(Settings(gpus_per_slot=5))


def test_a_trainer_sees_no_credentials_and_only_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPOCHD_DATABASE_URL", "EPOCHD_REDIS_URL", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "secret")
    environment = trainer_environment(threads=2, gpu="3")
    assert "secret" not in environment.values()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == ("3", "2")
    assert trainer_environment(threads=2, gpu=None)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_trainer_tells_the_domain_of_each_device() -> None:
    found = find_domains(FreshStarter(program("")), Capacity(1, 1, ("0",)), threading.Event(), native=True)
    assert found == {"cpu": '{"device": "cpu"}', "cuda": '{"device": "cpu"}'}


def test_where_trainers_do_not_work_there_is_no_domain(caplog: pytest.LogCaptureFixture) -> None:
    broken = FreshStarter([sys.executable, "-c", "import sys; sys.exit(3)"])
    assert find_domains(broken, Capacity(1, 1, ()), threading.Event(), native=True) == {}
    assert "trainers do not work on cpu" in caplog.text
