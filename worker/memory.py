"""A lack of memory: how it shows, what was predicted, and what would fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnn.costs import MEGABYTE, memory
from cnn.spec import TrainingSpec

GROUPS = Path("/sys/fs/cgroup")
LIMITS = ("memory.max", "memory.limit_in_bytes")
KILLS = ("memory.events", "memory.oom_control")
"""Files of a control group, in version 2 and in version 1; version 2 also counts the kills in the groups within it."""


@dataclass(frozen=True)
class Shortage:
    """What a run was predicted to need, and what its user can do."""

    predicted: str
    hint: str
    proven: bool
    """Whether the run is known to have had too little memory; else only that some process had."""


@dataclass(frozen=True)
class OomKills:
    """How many processes the kernel has killed for lack of memory; `count` only ever rises.

    Beside a SIGKILL of a trainer, a rise proves that this was the reason only where it is of its own group.
    """

    count: int
    of_own_group: bool
    """Else of the whole machine, with all its containers."""


def shortage(spec: TrainingSpec, available: int, *, proven: bool = True) -> Shortage:
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
            return Shortage(predicted, f"training.batch_size {size} would need about {total // MEGABYTE} MB", proven)
    return Shortage(predicted, "even training.batch_size 1 would need more: make the model smaller", proven)


def machine_bytes() -> int:
    """Memory of this machine, or of the container or control group that this process runs in."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [int(text) for path in _group_files(LIMITS) if (text := path.read_text().strip()) != "max"]
    return min(limits)


def oom_kills() -> OomKills:
    """Until now: in the control group of this process, which is that of its trainers, or else on the machine."""
    own = next(_group_files(KILLS), None)
    path = own or Path("/proc/vmstat")
    lines = path.read_text().splitlines() if path.exists() else []
    return OomKills(sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), own is not None)


def _group_files(names: tuple[str, str]) -> Iterator[Path]:
    """Those of the process's control group, then of the groups around it, as far as they can be seen.

    A container may see only its own group, under the name of the mount.
    """
    listed = Path("/proc/self/cgroup")
    for line in listed.read_text().splitlines() if listed.exists() else []:
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = GROUPS / controllers
        group = root / name.lstrip("/")
        for folder in (group, *group.parents[: len(group.relative_to(root).parts)]):
            yield from (folder / file for file in names if (folder / file).exists())
