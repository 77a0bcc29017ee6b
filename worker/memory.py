"""A lack of memory: how it shows, what was predicted, and what would fit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cnn.costs import MEGABYTE, memory
from cnn.spec import TrainingSpec

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Shortage:
    """What a run was predicted to need, and what its user can do."""

    predicted: str
    hint: str


def shortage(spec: TrainingSpec, available: int) -> Shortage:
    """Of a run that has not had enough, on a machine or GPU with so many bytes.

    The prediction is of a trainer on a CPU. What fits is a half, a quarter … of the batch size.
    """
    needed, size = memory(spec), spec.training.batch_size
    predicted = (
        f"predicted were {needed.total // MEGABYTE} MB with training.batch_size {size}, "
        f"{needed.activations // MEGABYTE} MB of them for activations, of {available // MEGABYTE} MB"
    )
    while size > 1:
        size //= 2
        training = spec.training.model_copy(update={"batch_size": size})
        total = memory(spec.model_copy(update={"training": training})).total
        if total <= available:
            return Shortage(predicted, f"training.batch_size {size} would need about {total // MEGABYTE} MB")
    return Shortage(predicted, "even training.batch_size 1 would need more: make the model smaller")


def machine_bytes() -> int:
    """Memory of this machine, or of the container that this process runs in."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, CGROUP_LIMITS):
        if path.exists() and (text := path.read_text().strip()) != "max":
            limits.append(int(text))
    return min(limits)


def num_oom_kills() -> int:
    """Processes that the kernel has killed for lack of memory, on this machine or in a container; 0 if it tells none.

    Any such kill raises it, so that it is evidence only beside a SIGKILL of the process in question.
    """
    path = Path("/proc/vmstat")
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
