"""What a job loses by going through the server, and what two jobs lose by training at once.

    python -m benchmarks.server_overhead [--rounds 5] [--data-dir epochd-data]       some fifteen minutes

Each round trains examples/fashion_fast.json on a part of the images, by `train()` in a new process and as a posted job:
with all cores, alone with one thread, and one such run per core at once, on a worker of as many slots. What the last of
these lose without a server is what the cores take from each other. Images per second are those of the training loop,
from the second epoch to the last but one, for in these all runs train. The seconds of a whole run are those from
`train()` to its result, with checkpoints and artifacts, and from the creation of the job to its end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
BARE_ALONE = "train(), 1 thread"
BARE_TOGETHER = f"{CORES} of train() at once, 1 thread each"
POSTED = f"a posted job, {CORES} threads"
ALONE = "a posted job, 1 thread"
TOGETHER = f"{CORES} posted jobs at once, 1 thread each"
IDEALS = {f"{CORES} times {one}": one for one in (BARE_ALONE, ALONE)}


@dataclass(frozen=True)
class Timing:
    """Of one run."""

    images_per_second: float
    seconds: float
    clean: bool


def bare(spec: TrainingSpec, data_dir: Path, threads: int, number: int = 1) -> list[Timing]:
    """So many equal runs at once, each in a new process with so many threads."""
    gate = Gate()
    with ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(_train, spec.model_dump_json(), data_dir, threads) for _ in range(number)]
        found = [run.result() for run in runs]
    clean = gate.clean
    return [Timing(rate, seconds, clean) for rate, seconds in found]


def _train(spec_json: str, data_dir: Path, threads: int) -> tuple[float, float]:
    """Images per second, and seconds of the whole run."""
    set_threads(threads)
    library.use(library.find())
    spec = TrainingSpec.model_validate_json(spec_json)
    data = spec.dataset.load(data_dir)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        events = list(train(spec, data, checkpoints=Path(folder, "checkpoints"), artifacts=Path(folder, "artifacts")))
        seconds = time.perf_counter() - start
    return _rate([event.timings["images_per_second"] for event in events if isinstance(event, Metrics)]), seconds


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
    timings: dict[str, list[Timing]] = {name: [] for name in (BARE, BARE_ALONE, BARE_TOGETHER, POSTED, ALONE, TOGETHER)}
    for number in range(1, rounds + 1):
        timings[BARE] += bare(spec, data_dir, CORES)
        with server(data_dir, slots=1) as running:
            timings[POSTED] += posted(running.http, body)
        timings[BARE_ALONE] += bare(spec, data_dir, 1)
        timings[BARE_TOGETHER].append(_summed(bare(spec, data_dir, 1, CORES)))
        with server(data_dir, slots=CORES) as running:
            timings[ALONE] += posted(running.http, body)
            timings[TOGETHER].append(_summed(posted(running.http, body, CORES)))
        print(f"round {number}: " + "; ".join(f"{name}: {found[-1]}" for name, found in timings.items()), flush=True)
    return timings


def _summed(together: Sequence[Timing]) -> Timing:
    """The images of all that ran at once, and the seconds of the longest."""
    return Timing(
        sum(timing.images_per_second for timing in together),
        max(timing.seconds for timing in together),
        together[0].clean,
    )


def images(timings: Mapping[str, Sequence[Timing]]) -> Rates:
    per_second = {name: [timing.images_per_second for timing in found] for name, found in timings.items()}
    clean = {name: [timing.clean for timing in found] for name, found in timings.items()}
    for ideal, one in IDEALS.items():
        per_second[ideal] = [CORES * rate for rate in per_second[one]]
        clean[ideal] = clean[one]
    return Rates(per_second, clean)


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
    timings = measure(arguments.data_dir, arguments.rounds, arguments.num_train)
    rates, whole = images(timings), runs(timings)
    speeds = [
        [name, f"{rates.median(name):,.0f}", f"{1 / whole.median(name):.1f}", rates.share(name)] for name in timings
    ]
    bare_ideal, ideal = IDEALS
    comparisons = [
        comparison(rates, POSTED, BARE),
        comparison(rates, TOGETHER, ideal),
        comparison(rates, BARE_TOGETHER, bare_ideal),
        comparison(rates, TOGETHER, BARE_TOGETHER),
        comparison(rates, TOGETHER, POSTED),
    ]
    notes = [
        f"`python -m benchmarks.server_overhead --rounds {arguments.rounds} --num-train {arguments.num_train}`: "
        f"{FAST.name} on so many images, {EPOCHS} epochs; medians of the rounds. A whole run has evaluation and export "
        "in it; through the server, the wait for the worker, and without it what `train()` imports, which a worker's "
        "launcher has behind it.",
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
