"""Variants of the same work, alternating in one process, on a machine where others may work too.

Speeds drift from minute to minute, so only ratios within a round are worth something; and a chunk of work counts only
if other processes used less than a tenth of a core meanwhile, for threads that wait for each other suffer from any.
"""

from __future__ import annotations

import datetime
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
FOREIGN_CORES = 0.10
LEAST_CLEAN = 3
RESAMPLES = 2000
CPU_MODEL = "model name"


@dataclass(frozen=True)
class Rates:
    """Units of work per second of each variant, one a round; `clean` (same order) says which rounds count."""

    per_second: Mapping[str, Sequence[float]]
    clean: Mapping[str, Sequence[bool]]

    def median(self, name: str) -> float:
        return statistics.median(self._counted(name))

    def share(self, name: str) -> str:
        """How many rounds were clean, of how many."""
        return f"{sum(self.clean[name])}/{len(self.clean[name])}"

    def ratio(self, name: str, to: str) -> tuple[float, float, float]:
        """Median over the rounds of one rate over another's, and the 95 % interval of a bootstrap."""
        pairs = zip(self.per_second[name], self.per_second[to], self.clean[name], self.clean[to], strict=True)
        ratios = [(a / b, first and second) for a, b, first, second in pairs]
        kept = [ratio for ratio, counts in ratios if counts]
        if len(kept) < LEAST_CLEAN:
            kept = [ratio for ratio, _ in ratios]
        generator = random.Random(0)
        medians = sorted(statistics.median(generator.choices(kept, k=len(kept))) for _ in range(RESAMPLES))
        return statistics.median(kept), medians[RESAMPLES // 40], medians[-RESAMPLES // 40]

    @property
    def warning(self) -> str:
        """Empty, unless some variants had fewer clean rounds than count: their numbers are of all rounds."""
        dirty = [name for name, clean in self.clean.items() if sum(clean) < LEAST_CLEAN]
        return f"Others used the cores: less than {LEAST_CLEAN} clean rounds of {', '.join(dirty)}." if dirty else ""

    def _counted(self, name: str) -> list[float]:
        pairs = list(zip(self.per_second[name], self.clean[name], strict=True))
        kept = [rate for rate, counts in pairs if counts]
        return kept if len(kept) >= LEAST_CLEAN else [rate for rate, _ in pairs]


def alternate(
    variants: Mapping[str, Callable[[], int]],
    *,
    rounds: int = 10,
    seconds: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> Rates:
    """Each variant does some work and says how many units; it is called for `seconds`, in each of the rounds.

    clock: the time that is divided by; the gate always works with wall-clock time.
    """
    for work in variants.values():
        work()
    per_second: dict[str, list[float]] = {name: [] for name in variants}
    clean: dict[str, list[bool]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            gate, wall, start = Gate(), time.perf_counter(), clock()
            units = work()
            while time.perf_counter() - wall < seconds:
                units += work()
            per_second[name].append(units / (clock() - start))
            clean[name].append(gate.clean)
    return Rates(per_second, clean)


class Gate:
    """Says whether others left the cores alone since it was made."""

    def __init__(self) -> None:
        self._foreign = _foreign_seconds()
        self._wall = time.perf_counter()

    @property
    def clean(self) -> bool:
        elapsed = time.perf_counter() - self._wall
        return (_foreign_seconds() - self._foreign) / elapsed < FOREIGN_CORES


def _foreign_seconds() -> float:
    """CPU seconds since the machine started that neither this process nor a descendant of it used."""
    busy = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, busy)
    return (user + nice + system + irq + softirq - _own_ticks()) / os.sysconf("SC_CLK_TCK")


def _own_ticks() -> int:
    """CPU time of this process and its descendants, with the dead ones that were waited for."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        pid = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        ticks[pid] = sum(map(int, fields[11:15]))  # user and system, and the same of children
    total, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        total += ticks[pid]
        waiting += children.get(pid, [])
    return total


def machine() -> str:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith(CPU_MODEL)), platform.machine())
    threads = torch.get_num_threads()
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{model}, {os.cpu_count()} cores, {threads} threads; torch {torch.__version__}; {today}"


def write(name: str, title: str, tables: Sequence[str], notes: Sequence[str] = (), *, keep: bool = True) -> None:
    """Print the tables, and write them to results/<name>.md, unless they are not to be kept."""
    text = "\n\n".join([f"# {title}", machine(), *filter(None, notes), *tables]) + "\n"
    print(text)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
