"""What a job loses by going through the server, and what two jobs lose by training at once.

    python -m benchmarks.server_overhead [--rounds 5] [--data-dir epochd-data]       some ten minutes

Each round trains examples/fashion_fast.json on a part of the images: by `train()` in this process, as a posted job
with all cores, alone with one thread on a worker of as many slots as cores, and one such job per slot at once. Images
per second are those of the training loop, from the second epoch to the last but one, for in these all jobs of a round
train. The seconds of a whole run are those from `train()` to its result, with checkpoints and artifacts, and from the
creation of the job to its end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.alternation import Gate, Rates, table, write
from benchmarks.servers import Running, epochd
from cnn.determinism import set_threads
from cnn.events import Metrics
from cnn.native import library
from cnn.spec import TrainingSpec
from cnn.training import train

ROOT = Path(__file__).parent.parent
FAST = ROOT / "examples" / "fashion_fast.json"
WARM_UP = ROOT / "examples" / "digits.json"
EPOCHS = 6
POLL_SECONDS = 5.0
"""Between looks whether a job has ended: each costs the cores that train some milliseconds, and nobody must look. The
times of a job are the server's own, so that they are none the worse for it."""
DEADLINE_SECONDS = 600.0
CORES = os.cpu_count() or 1

BARE = f"train(), {CORES} threads"
POSTED = f"a posted job, {CORES} threads"
ALONE = "a posted job, 1 thread"
IDEAL = f"{CORES} times that"
TOGETHER = f"{CORES} posted jobs at once, 1 thread each"


@dataclass(frozen=True)
class Timing:
    """Of one run."""

    images_per_second: float
    seconds: float
    clean: bool


def bare(spec: TrainingSpec, data_dir: Path, folder: Path) -> Timing:
    data = spec.dataset.load(data_dir)
    gate, start = Gate(), time.perf_counter()
    events = list(train(spec, data, checkpoints=folder / "checkpoints", artifacts=folder / "artifacts"))
    seconds = time.perf_counter() - start
    rates = [event.timings["images_per_second"] for event in events if isinstance(event, Metrics)]
    return Timing(_rate(rates), seconds, gate.clean)


def posted(client: httpx.Client, spec: Mapping[str, Any], number: int = 1) -> list[Timing]:
    """So many equal jobs, posted together and trained at once."""
    gate = Gate()
    jobs = [client.post("/v1/jobs", json={"spec": spec}).raise_for_status().json() for _ in range(number)]
    ended = [_ended(client, job["links"]["self"]) for job in jobs]
    clean = gate.clean
    return [Timing(_rate(_rates(client, job)), _seconds(job), clean) for job in ended]


def _ended(client: httpx.Client, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    job: dict[str, Any] = client.get(path).raise_for_status().json()
    while not job["terminal"] and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        job = client.get(path).raise_for_status().json()
    if job["status"] != "succeeded":
        raise RuntimeError(f"the job {job['id']} should have succeeded, it is {job['status']}: {job['error']}")
    return job


def _rates(client: httpx.Client, job: Mapping[str, Any]) -> list[float]:
    page = client.get(job["links"]["metrics"], params={"keys": "images_per_second"}).raise_for_status().json()
    return [point["value"] for point in page["data"]]


def _rate(epochs: Sequence[float]) -> float:
    """Epochs have equally many images, so that the mean of their times is the harmonic one of their rates."""
    return statistics.harmonic_mean(epochs[1:-1])


def _seconds(job: Mapping[str, Any]) -> float:
    created, finished = (datetime.fromisoformat(job[name]) for name in ("created_at", "finished_at"))
    return (finished - created).total_seconds()


@contextmanager
def server(data_dir: Path, slots: int) -> Iterator[Running]:
    """With the datasets of `data_dir`, and one job behind it, so that the launcher is warm."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "data")
        folder.mkdir()
        (folder / "datasets").symlink_to((data_dir / "datasets").absolute())
        with epochd(folder, slots=slots, threads=CORES // slots) as running:
            posted(running.http, TrainingSpec.model_validate_json(WARM_UP.read_bytes()).model_dump(mode="json"))
            yield running


def measure(data_dir: Path, rounds: int, num_train: int) -> dict[str, list[Timing]]:
    spec = TrainingSpec.model_validate_json(FAST.read_bytes())
    changes = {"split": {"num_train": num_train}, "training": {"epochs": EPOCHS}}
    spec = spec.model_copy(
        update={name: getattr(spec, name).model_copy(update=values) for name, values in changes.items()}
    )
    body = spec.model_dump(mode="json")
    timings: dict[str, list[Timing]] = {BARE: [], POSTED: [], ALONE: [], TOGETHER: []}
    for number in range(1, rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            timings[BARE].append(bare(spec, data_dir, Path(folder)))
        with server(data_dir, slots=1) as running:
            timings[POSTED] += posted(running.http, body)
        with server(data_dir, slots=CORES) as running:
            timings[ALONE] += posted(running.http, body)
            together = posted(running.http, body, CORES)
        seconds = max(timing.seconds for timing in together)
        total = sum(timing.images_per_second for timing in together)
        timings[TOGETHER].append(Timing(total, seconds, together[0].clean))
        print(f"round {number}: " + "; ".join(f"{name}: {found[-1]}" for name, found in timings.items()), flush=True)
    return timings


def images(timings: Mapping[str, Sequence[Timing]]) -> Rates:
    per_second = {name: [timing.images_per_second for timing in found] for name, found in timings.items()}
    per_second[IDEAL] = [CORES * rate for rate in per_second[ALONE]]
    clean = {name: [timing.clean for timing in found] for name, found in timings.items()}
    return Rates(per_second, clean | {IDEAL: clean[ALONE]})


def runs(timings: Mapping[str, Sequence[Timing]]) -> Rates:
    per_second = {name: [1 / timing.seconds for timing in found] for name, found in timings.items()}
    return Rates(per_second, {name: [timing.clean for timing in found] for name, found in timings.items()})


def comparison(rates: Rates, name: str, to: str) -> list[str]:
    ratio, low, high = rates.ratio(name, to)
    return [name, to, f"{100 * ratio:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", rates.share(name)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_overhead", description="The cost of the server.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-train", type=int, default=32_000, help="images of an epoch")
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    set_threads(CORES)
    library.use(library.find())
    timings = measure(arguments.data_dir, arguments.rounds, arguments.num_train)
    rates, whole = images(timings), runs(timings)
    speeds = [
        [name, f"{rates.median(name):,.0f}", f"{1 / whole.median(name):.1f}", rates.share(name)] for name in timings
    ]
    comparisons = [
        comparison(rates, POSTED, BARE),
        comparison(rates, TOGETHER, IDEAL),
        comparison(rates, TOGETHER, POSTED),
    ]
    notes = [
        f"`python -m benchmarks.server_overhead --rounds {arguments.rounds} --num-train {arguments.num_train}`: "
        f"{FAST.name} on so many images, {EPOCHS} epochs; medians of the rounds. A whole run has evaluation and export "
        "in it and, through the server, the wait for the worker.",
        rates.warning,
    ]
    tables = [
        table(["", "images/s", "seconds of a whole run", "clean"], speeds),
        "## Images per second",
        table(["", "of", "%", "95 % interval", "clean"], comparisons),
    ]
    write("server_overhead", "Through the server and beside another job", tables, notes)


if __name__ == "__main__":
    main()
