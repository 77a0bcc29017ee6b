"""What this machine trains on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from worker.settings import Settings, visible_gpus


@dataclass(frozen=True)
class Capacity:
    """How many trainers run at once, each with how many CPU threads, on which GPUs (none: on the CPU)."""

    slots: int
    threads: int
    gpus: tuple[str, ...]

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        return "cuda" if self.gpus else "cpu"

    def gpu_of(self, slot: int) -> str | None:
        """The GPU that a slot uses; slots share GPUs when there are more of them."""
        return self.gpus[slot % len(self.gpus)] if self.gpus else None


class CapacityError(ValueError):
    """The settings ask for more than the machine has."""


def find_capacity(settings: Settings) -> Capacity:
    """What the settings say, else one slot per GPU (one without any) and the cores shared among the slots.

    Raises:
        CapacityError: slots times threads exceed the cores.
    """
    cores = num_cores()
    gpus = find_gpus()
    slots = settings.slots or min(max(1, len(gpus)), cores)
    threads = settings.threads or max(1, cores // slots)
    if slots * threads > cores:
        raise CapacityError(
            f"{slots} slots (EPOCHD_SLOTS) times {threads} threads (EPOCHD_THREADS) exceed the {cores} cores "
            "of this machine: training would slow down several times over"
        )
    return Capacity(slots, threads, gpus)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def find_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    The driver is asked out of process, because asking CUDA itself would poison forked children.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return ()
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    visible = visible_gpus()
    return tuple(str(number) for number in range(count)) if visible is None or not count else visible
