"""A campaign: a client asks for jobs while faults happen at random, until each has happened as often as wanted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random

from cnn.spec import TrainingSpec
from tests.faults.faults import Fault
from tests.faults.installation import Installation

LOOK_SECONDS = 0.1


def run(
    installation: Installation,
    mix: Mapping[str, TrainingSpec],
    faults: Mapping[str, Fault],
    wanted: Mapping[str, int],
    *,
    seed: int,
    open_jobs: int = 4,
    pause_seconds: float = 0.5,
    told: Callable[[Counter[str]], None] | None = None,
) -> Counter[str]:
    """Returns how often each fault has happened; the installation is then whole, and may still have jobs to do.

    Args:
        mix: the jobs, asked for again and again, each time under the name `<name>/<number>`.
        wanted: how often each fault is to happen at least.
        open_jobs: how many jobs there are at least that have not ended, as long as the campaign lasts.
        pause_seconds: the longest pause between two faults.
        told: is called after every fault.
    """
    random = Random(seed)
    happened: Counter[str] = Counter()
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(_ask, installation, mix, open_jobs, over)
        try:
            while left := {name: n - happened[name] for name, n in wanted.items() if happened[name] < n}:
                (name,) = random.choices(list(left), weights=list(left.values()))
                happened[name] += faults[name](installation, random)
                if told is not None:
                    told(happened)
                if over.wait(random.uniform(0, pause_seconds)) or asking.done():
                    break
        finally:
            over.set()
        asking.result()
    installation.wait_for_api()
    return happened


def _ask(installation: Installation, mix: Mapping[str, TrainingSpec], open_jobs: int, over: threading.Event) -> None:
    for number in count():
        for name, spec in mix.items():
            installation.submit(f"{name}/{number}", spec)
            while not over.wait(LOOK_SECONDS):
                installation.client.look()
                if sum(not promise.terminal for promise in installation.client.promises.values()) < open_jobs:
                    break
            if over.is_set():
                return
