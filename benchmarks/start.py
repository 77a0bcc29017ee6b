"""Seconds from the submission of a small digits job to its steps, with a warm launcher and with fresh trainers.

python benchmarks/start.py [--jobs 7] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "examples" / "digits.json"
JOB_SECONDS = 120.0
STAGES = ("claimed", "training", "first epoch", "succeeded")


@contextmanager
def epochd(launcher: str, threads: int) -> Iterator[httpx.Client]:
    """A whole installation on a folder of its own, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.txt")
        environment = {
            **os.environ,
            "EPOCHD_DATA_DIR": folder,
            "EPOCHD_PORT": "0",
            "EPOCHD_SLOTS": "1",
            "EPOCHD_THREADS": str(threads),
            "EPOCHD_LAUNCHER": launcher,
        }
        with log.open("w") as output:
            command = [str(Path(sys.executable).parent / "epochd"), "up", "--dev"]
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            while not (ready := re.search(r"ready at (\S+)", log.read_text())):
                if process.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.1)
            with httpx.Client(base_url=ready[1], timeout=30) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def run(client: httpx.Client, spec: Mapping[str, Any]) -> dict[str, float]:
    """Train one job, alone; when each stage was recorded, in seconds after its submission."""
    job = client.post("/v1/jobs", json={"spec": spec}).raise_for_status().json()
    deadline = time.monotonic() + JOB_SECONDS
    while not (job := client.get(job["links"]["self"]).json())["terminal"] and time.monotonic() < deadline:
        time.sleep(0.25)
    if job["status"] != "succeeded":
        sys.exit(f"the job is {job['status']}: {job['error']}")
    times: dict[str, float] = {}
    for event in client.get(job["links"]["events"], params={"limit": 200}).json()["data"]:
        if stage := stage_of(event):
            seconds = datetime.fromisoformat(event["at"]) - datetime.fromisoformat(job["created_at"])
            times.setdefault(stage, seconds.total_seconds())
    return times


def stage_of(event: Mapping[str, Any]) -> str | None:
    match event:
        case {"type": "job.status", "data": {"to": "running"}}:
            return "claimed"
        case {"type": "job.progress", "data": {"phase": "training"}}:
            return "training"
        case {"type": "job.metric"}:
            return "first epoch"
        case {"type": "job.status", "data": {"to": "succeeded"}}:
            return "succeeded"
    return None


def row(name: str, times: list[dict[str, float]]) -> str:
    cells = []
    for stage in STAGES:
        values = [found[stage] for found in times]
        cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    spec = json.loads(SPEC.read_text())
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"`python benchmarks/start.py --jobs {arguments.jobs} --threads {arguments.threads}` on {machine}.")
    print(f"Seconds after the submission of `examples/digits.json`, median (range) of {arguments.jobs} jobs.\n")
    print(f"| launcher | {' | '.join(STAGES)} |\n|{'---|' * (len(STAGES) + 1)}")
    for launcher in ("warm", "fresh"):
        with epochd(launcher, arguments.threads) as client:
            run(client, spec)  # once the launcher has imported everything
            print(row(launcher, [run(client, spec) for _ in range(arguments.jobs)]), flush=True)


if __name__ == "__main__":
    main()
