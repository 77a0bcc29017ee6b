"""What this machine trains on."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.process import Message, TrainerProcess
from worker.settings import Settings, trainer_environment, visible_gpus
from worker.starters import Starter
from worker.store.domains import domain_of

logger = logging.getLogger(__name__)

TRAINER_SECONDS = 60.0
"""How long a trainer may take to import torch and tell its determinism domain."""


@dataclass(frozen=True)
class Capacity:
    """How many trainers run at once, each with how many CPU threads, on which GPUs (none: on the CPU)."""

    slots: int
    threads: int
    gpus: tuple[str, ...]
    gpus_per_slot: int = 1

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        return "cuda" if self.gpus else "cpu"

    def gpu_of(self, slot: int) -> str | None:
        """The GPUs that a slot uses, with commas; slots share GPUs when there are more of them."""
        if not self.gpus:
            return None
        first = slot % (len(self.gpus) // self.gpus_per_slot) * self.gpus_per_slot
        return ",".join(self.gpus[first : first + self.gpus_per_slot])


class CapacityError(ValueError):
    """The settings ask for more than the machine has."""


def find_capacity(settings: Settings) -> Capacity:
    """What the settings say, else one slot per GPU (one without any) and the cores shared among the slots.

    Raises:
        CapacityError: slots times threads exceed the cores, or a slot has more GPUs than there are.
    """
    cores = num_cores()
    gpus = find_gpus()
    per_slot = settings.gpus_per_slot
    if gpus and per_slot > len(gpus):
        raise CapacityError(f"a slot has {per_slot} GPUs (EPOCHD_GPUS_PER_SLOT), but this machine has {len(gpus)}")
    slots = settings.slots or min(max(1, len(gpus) // per_slot), cores)
    threads = settings.threads or max(1, cores // slots)
    if slots * threads > cores:
        raise CapacityError(
            f"{slots} slots (EPOCHD_SLOTS) times {threads} threads (EPOCHD_THREADS) exceed the {cores} cores "
            "of this machine: training would slow down several times over"
        )
    return Capacity(slots, threads, gpus, per_slot)


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


def find_domains(starter: Starter, capacity: Capacity, draining: threading.Event, *, native: bool) -> dict[str, str]:
    """The determinism domain of trainers on each device of this machine, as one that trains nothing tells it.

    Empty where a trainer does not work, which is logged, and when the worker must stop.
    """
    gpus = {"cpu": None} | ({"cuda": capacity.gpus[0]} if capacity.gpus else {})
    found = {}
    for device, gpu in gpus.items():
        request = {"threads": capacity.threads, "device": device, "native": native}
        found[device] = _find_domain(starter, request, trainer_environment(threads=capacity.threads, gpu=gpu), draining)
    known = {device: domain for device, domain in found.items() if domain is not None}
    return known if len(known) == len(gpus) else {}


def _find_domain(
    starter: Starter, request: Message, environment: Mapping[str, str], draining: threading.Event
) -> str | None:
    try:
        trainer = TrainerProcess(starter, environment=environment, log=Path(os.devnull), attempt=0, request=request)
    except OSError as error:
        logger.error("no trainer can be started: %s", error)
        return None
    deadline = time.monotonic() + TRAINER_SECONDS
    with trainer:
        while not trainer.wait(0.1) and not draining.is_set() and time.monotonic() < deadline:
            pass
        message = next(iter(trainer.take(1)), {})
    if message.get("type") == "started":
        return domain_of(message["determinism"])
    if not draining.is_set():
        device = request["device"]
        logger.error("trainers do not work on %s, so nothing is claimed: %s, %s", device, trainer.exit, message)
    return None
