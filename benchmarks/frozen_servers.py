"""What the servers take from a job that trains on all cores: one job, beside which they are frozen every few seconds.

    python -m benchmarks.frozen_servers [--rounds 12] [--data-dir epochd-data]       some three minutes

Two runs on such a machine differ by a tenth from each other, whoever started them (see server_overhead.py). Here it is
one run and one process: only whole epochs count, each either with all other processes of epochd stopped or with none.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.alternation import Gate, Rates, table, write
from benchmarks.server_overhead import CORES, FAST, server
from benchmarks.servers import Running
from cnn.spec import TrainingSpec
from tests.integration.processes import descendants

SECONDS = 7.0
"""Of each turn; after 8 a trainer that hears nothing of its worker ends."""
NUM_TRAIN = 16_000
LATEST = 1.0
"""Seconds after its end until all epochs of a turn without servers are recorded; no epoch is as short."""
TRAINER = "epochd-trainer"
BESIDE, FROZEN = "beside its servers", "while they are frozen"


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def others(running: Running) -> list[int]:
    """All processes of epochd but the trainer."""
    everything = [running.pid, *descendants(running.pid)]
    return [pid for pid in everything if Path(f"/proc/{pid}/comm").read_text().strip() != TRAINER]


def measure(running: Running, rounds: int) -> Rates:
    spec = TrainingSpec.model_validate_json(FAST.read_bytes())
    changes = {"split": {"num_train": NUM_TRAIN}, "training": {"epochs": 100 * rounds}}
    body = spec.model_copy(
        update={name: getattr(spec, name).model_copy(update=values) for name, values in changes.items()}
    ).model_dump(mode="json")
    job = running.http.post("/v1/jobs", json={"spec": body}).raise_for_status().json()
    time.sleep(SECONDS)
    turns, clean = [], []
    for _ in range(rounds):
        gate = Gate()
        with frozen(others(running)):
            time.sleep(SECONDS)
        continued = time.time()
        time.sleep(SECONDS)
        turns.append((continued, time.time()))
        clean.append(gate.clean)
    points = running.http.get(job["links"]["metrics"], params={"keys": "images_per_second", "limit": 200}).json()
    running.http.post(f"{job['links']['self']}/cancel").raise_for_status()
    epochs = [epochs_of(points["data"], *turn) for turn in turns]
    whole = [number for number, (beside, alone) in enumerate(epochs) if beside and alone]
    if not whole:
        raise RuntimeError(f"no epoch lay within {SECONDS} s: others used the cores")
    per_second = {
        name: [statistics.harmonic_mean(epochs[number][which]) for number in whole]
        for which, name in enumerate((BESIDE, FROZEN))
    }
    return Rates(per_second, {name: [clean[number] for number in whole] for name in per_second})


def epochs_of(points: Sequence[dict[str, Any]], continued: float, end: float) -> tuple[list[float], list[float]]:
    """Images per second of those that lay wholly in the turn with servers, and in the one without before it.

    A turn without servers is recorded when they go on. The first epoch of it began before it, the last one of those
    that are recorded so early may have ended after it.
    """
    found = [(datetime.fromisoformat(point["at"]).timestamp(), point["value"]) for point in points]
    burst = [rate for at, rate in found if continued - 0.1 < at < continued + LATEST]
    beside = [rate for at, rate in found if continued + LATEST + NUM_TRAIN / rate < at < end]
    return beside, burst[1:-1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen_servers", description="The cost of the servers.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    with server(arguments.data_dir, slots=1) as running:
        rates = measure(running, arguments.rounds)
    ratio, low, high = rates.ratio(BESIDE, FROZEN)
    rows = [[name, f"{rates.median(name):,.0f}", rates.share(name)] for name in (BESIDE, FROZEN)]
    notes = [
        f"`python -m benchmarks.frozen_servers --rounds {arguments.rounds}`: one posted job of {FAST.name}, {CORES} "
        f"threads, epochs of {NUM_TRAIN:,} images, while API, worker, queue and launcher are frozen and continued in "
        f"turns of {SECONDS:.0f} s.",
        rates.warning,
    ]
    tables = [
        table(["a job", "images/s", "clean"], rows),
        f"Beside its servers it has {100 * ratio:.1f} % of the speed ({100 * low:.1f} to {100 * high:.1f}).",
    ]
    write("frozen_servers", "What the servers take from a job", tables, notes)


if __name__ == "__main__":
    main()
