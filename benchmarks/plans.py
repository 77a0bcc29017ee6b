"""What plans promise against what runs take: `python benchmarks/plans.py`, about ten minutes on a calm core.

Each spec of `plan_specs.py` is trained once, with one thread, in a process of its own that begins as a trainer does:
with nothing loaded. Its memory is read every few milliseconds: RssAnon of /proc, which is private memory, what is
mapped from files not counted. Its time is that of the whole process. A duration is predicted from the other runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from plan_specs import SPECS

from cnn.costs import MEGABYTE, memory, work
from cnn.spec import TrainingSpec
from worker.durations import Past, learn

SAMPLE_SECONDS = 0.004
RESULTS = Path(__file__).with_name("results") / "plans.md"


@dataclass(frozen=True)
class Row:
    """One run: predictions and measurements."""

    name: str
    predicted_bytes: int
    peak_bytes: int
    seconds: float
    predicted_seconds: float = 0.0
    low_seconds: float = 0.0
    high_seconds: float = 0.0

    @property
    def memory_error(self) -> float:
        return self.predicted_bytes / self.peak_bytes - 1

    @property
    def duration_error(self) -> float:
        return self.predicted_seconds / self.seconds - 1

    @property
    def is_covered(self) -> bool:
        return self.low_seconds <= self.seconds <= self.high_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    parser.add_argument("--only", default="", help="part of the names of the specs to run; nothing is written then")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        train_once(arguments.run, arguments.data_dir)
        return
    names = [name for name in SPECS if arguments.only in name]
    specs = {name: TrainingSpec.model_validate_json(json.dumps(SPECS[name])) for name in names}
    measured = []
    for name, spec in specs.items():
        peak_bytes, seconds = measure(spec, arguments.data_dir)
        measured.append(Row(name, memory(spec).total, peak_bytes, seconds))
        show(f"{name:32} {peak_bytes / MEGABYTE:5.0f} MB {measured[-1].memory_error:+4.0%} {seconds:6.1f} s")
    rows = with_durations(measured, specs)
    text = table(rows)
    show(text)
    if not arguments.only:
        RESULTS.write_text(text)


def show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def measure(spec: TrainingSpec, data_dir: Path) -> tuple[int, float]:
    """Largest private memory and seconds of a run in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spec.json").write_text(spec.model_dump_json())
        command = [sys.executable, __file__, "--run", folder, "--data-dir", str(data_dir)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment)
        peak = 0
        while process.poll() is None:
            peak = max(peak, private_bytes(process.pid))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - begin
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}")
    return peak, seconds


def private_bytes(pid: int) -> int:
    """0 when the process has just ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def train_once(folder: Path, data_dir: Path) -> None:

    from cnn.determinism import set_threads  # noqa: PLC0415
    from cnn.native import library  # noqa: PLC0415
    from cnn.training import train  # noqa: PLC0415

    set_threads(1)
    library.use(library.find())
    spec = TrainingSpec.model_validate_json((folder / "spec.json").read_text())
    data = spec.dataset.load(data_dir)
    for _ in train(spec, data, checkpoints=folder / "checkpoints", artifacts=folder / "artifacts"):
        pass


def with_durations(measured: list[Row], specs: dict[str, TrainingSpec]) -> list[Row]:
    """The rows with the duration of each, predicted from all others."""
    runs = [Past(work(specs[row.name]), row.seconds) for row in measured]
    rows = []
    for index, row in enumerate(measured):
        estimate = learn((*runs[:index], *runs[index + 1 :])).estimate(runs[index].work)
        bounds = estimate.seconds, estimate.low_seconds, estimate.high_seconds
        rows.append(Row(row.name, row.predicted_bytes, row.peak_bytes, row.seconds, *bounds))
    return rows


def table(rows: list[Row]) -> str:
    within = sum(abs(row.memory_error) <= 0.15 for row in rows)
    sizes = [abs(row.memory_error) for row in rows]
    times = [abs(row.duration_error) for row in rows]
    lines = [
        "# Plans against runs",
        "",
        f"`python benchmarks/plans.py` on {platform.machine()} with {os.cpu_count()} cores, 1 thread a run, "
        f"Python {platform.python_version()}. Memory: the largest RssAnon of a fresh trainer process, sampled every "
        f"{1000 * SAMPLE_SECONDS:.0f} ms. Durations: each is predicted from all other runs.",
        "",
        f"- Memory: {within} of {len(rows)} runs within 15 %, median error {median(sizes):.1%}, "
        f"largest {max(sizes):.1%}.",
        f"- Duration: median error {median(times):.1%}; the 90 % interval holds "
        f"{sum(row.is_covered for row in rows)} of {len(rows)}.",
        "",
        "| run | predicted MB | measured MB | error | predicted s | 90 % interval | measured s | error |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        bytes_ = f"{row.predicted_bytes / MEGABYTE:.0f} | {row.peak_bytes / MEGABYTE:.0f} | {row.memory_error:+.0%}"
        interval = f"{row.low_seconds:.1f} to {row.high_seconds:.1f}"
        seconds = f"{row.predicted_seconds:.1f} | {interval} | {row.seconds:.1f} | {row.duration_error:+.0%}"
        lines.append(f"| {row.name} | {bytes_} | {seconds} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
