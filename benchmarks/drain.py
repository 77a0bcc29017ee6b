"""A thousand queued jobs through one worker with two slots: is any lost, does anything grow, does the API still answer?

    python -m benchmarks.drain --jobs 1000

All jobs are queued before the worker starts. While it works through them, memory, threads, open files and processes of
worker, launcher and API are sampled every second, and the API is asked for a job, for a list and for a plan. The exit
code is 1 if a job was lost or tried twice, or if something has grown from the second quarter of the time to the last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.alternation import table, write
from cnn.spec import TrainingSpec
from tests.faults.faults import launchers
from tests.faults.installation import Installation
from tests.faults.invariants import Story, read
from tests.integration.processes import descendants
from worker.jobs import JobStatus

SPEC = TrainingSpec.model_validate_json(
    """{"dataset": {"type": "digits"}, "split": {"num_train": 96},
        "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
        "optimizer": {"type": "sgd"}, "training": {"epochs": 1, "batch_size": 32}}"""
)
SLOTS = 2
SAMPLE_SECONDS = 1.0
MAX_GROWTH = {"MB": 8.0, "threads": 1.0, "files": 2.0}
"""Of a median from the second quarter to the last one, for one process."""


@dataclass
class Samples:
    """What was seen while the queue was worked off."""

    sizes: dict[str, list[float]] = field(default_factory=dict)
    """Of each process and kind of size, in the order of time."""
    answers: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of each answer by what was asked."""

    def size(self, name: str, value: float) -> None:
        self.sizes.setdefault(name, []).append(value)

    def growth(self, name: str) -> tuple[float, float]:
        """The medians of the second and of the last quarter."""
        values = self.sizes[name]
        quarter = max(1, len(values) // 4)
        return statistics.median(values[quarter : 2 * quarter] or values), statistics.median(values[-quarter:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description="Work off a long queue.")
    parser.add_argument("--jobs", type=int, default=1000, help="how many to queue")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epochd-drain-") as folder:
        settings = {"slots": str(SLOTS)}
        with closing(Installation(Path(folder), num_workers=0, settings=settings)) as installation:
            for number in range(arguments.jobs):
                installation.client.submit(f"job/{number}", SPEC)
            samples = Samples()
            began = time.monotonic()
            drain(installation, samples)
            seconds = time.monotonic() - began
            stories = list(read(installation.database).values())
    return report(arguments.jobs, stories, samples, seconds)


def drain(installation: Installation, samples: Samples) -> None:
    """Start the worker, and sample from its first jobs on until nothing is left."""
    queued = installation.num_unfinished()
    installation.add_worker()
    while installation.num_unfinished() > queued - 2 * SLOTS:
        time.sleep(SAMPLE_SECONDS)
    over = threading.Event()
    asking = threading.Thread(target=ask, args=(installation, samples, over))
    asking.start()
    try:
        while installation.num_unfinished():
            sample(installation, samples)
            time.sleep(SAMPLE_SECONDS)
    finally:
        over.set()
        asking.join()
    installation.drain()


def sample(installation: Installation, samples: Samples) -> None:
    (worker,) = installation.workers
    processes = {"worker": worker.pid, "API": installation.api.pid}
    processes |= dict(zip(["launcher"], launchers(installation), strict=False))
    for name, pid in processes.items():
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        samples.size(f"{name}, MB", int(status["VmRSS"].removesuffix("kB")) / 1024)
        samples.size(f"{name}, threads", int(status["Threads"]))
        samples.size(f"{name}, files", len(os.listdir(f"/proc/{pid}/fd")))
    samples.size("processes of the worker", len(descendants(worker.pid)))


def ask(installation: Installation, samples: Samples, over: threading.Event) -> None:
    """Ask the API what people ask it, five times a second each."""
    job_id = next(iter(installation.client.promises))
    plan = {"spec": SPEC.model_dump(mode="json")}
    questions: dict[str, dict[str, Any]] = {
        "GET /v1/jobs/{id}": {"method": "GET", "url": f"/v1/jobs/{job_id}"},
        "GET /v1/jobs": {"method": "GET", "url": "/v1/jobs"},
        "POST /v1/plans": {"method": "POST", "url": "/v1/plans", "json": plan},
    }
    with httpx.Client(base_url=installation.url, timeout=30) as client:
        while not over.wait(0.2):
            for name, question in questions.items():
                began = time.perf_counter()
                client.request(**question).raise_for_status()
                samples.answers.setdefault(name, []).append((time.perf_counter() - began) * 1000)


def report(num_jobs: int, stories: list[Story], samples: Samples, seconds: float) -> int:
    succeeded = sum(story.job.status == JobStatus.SUCCEEDED for story in stories)
    attempts = sum(len(story.attempts) for story in stories)
    weights = {story.job.result.sha256 for story in stories if story.job.result is not None}
    grown = {
        name: (before, after)
        for name in samples.sizes
        for before, after in [samples.growth(name)]
        if after - before > MAX_GROWTH.get(name.rpartition(", ")[2], SLOTS)
    }
    sizes = [
        [name, *(f"{value:.0f}" for value in samples.growth(name)), f"{max(samples.sizes[name]):.0f}"]
        for name in sorted(samples.sizes)
    ]
    answers = [
        [name, str(len(values)), *(f"{statistics.quantiles(values, n=100)[share - 1]:.0f}" for share in (50, 95, 99))]
        for name, values in samples.answers.items()
    ]
    notes = [
        f"`python -m benchmarks.drain --jobs {num_jobs}`: a queue of {num_jobs} jobs, {SLOTS} slots of one thread.",
        f"{succeeded} of {num_jobs} succeeded in {attempts} attempts and delivered {len(weights)} different weights; "
        f"{seconds:.0f} s, {num_jobs / seconds:.1f} jobs per second.",
        f"Grown: {grown or 'nothing'}.",
    ]
    tables = [
        table(["size", "median of the second quarter", "of the last quarter", "largest"], sizes),
        table(["asked meanwhile", "times", "median, ms", "p95, ms", "p99, ms"], answers),
    ]
    write("drain", "A long queue", tables, notes)
    return 0 if succeeded == attempts == num_jobs and len(weights) == 1 and not grown else 1


if __name__ == "__main__":
    sys.exit(main())
