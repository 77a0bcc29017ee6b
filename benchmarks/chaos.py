"""Kill what can be killed, hundreds of times, while jobs with every technique train; then check that nothing was lost.

    python -m benchmarks.chaos --trainer-kills 200 --worker-kills 50 --api-kills 50 --broker-kills 50

A whole installation (API, two workers, Valkey, SQLite or PostgreSQL) of real processes gets jobs from a client that asks
again when no answer comes. Each kind of SIGKILL happens at random moments at least as often as asked for, and every other
fault of `tests/faults/faults.py` `--others` times. Then the installation is left to finish its jobs, and everything that
`tests/faults/invariants.py` checks must hold, the weights and the deterministic metrics of every job being those of an
undisturbed run to the byte. The exit code is 1 if anything does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, nullcontext
from pathlib import Path
from random import SystemRandom

import torch

from benchmarks.alternation import table, write
from tests.faults.campaign import run
from tests.faults.clock import JumpingClock, find_libfaketime
from tests.faults.faults import KILLS, OTHERS
from tests.faults.installation import Installation
from tests.faults.invariants import Story, read, violations
from tests.faults.mix import make_mix
from tests.faults.reference import undisturbed_mix
from tests.postgresql import PostgreSQL

EPOCHS = 16


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    wanted = {
        "trainer": arguments.trainer_kills,
        "worker": arguments.worker_kills,
        "API": arguments.api_kills,
        "broker": arguments.broker_kills,
        **dict.fromkeys(OTHERS, arguments.others),
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="epochd-chaos-") as folder, database(arguments.postgresql) as url:
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        mix = make_mix(data_dir, epochs=EPOCHS)
        expected = undisturbed_mix(mix, Path(folder) / "undisturbed")
        # A trainer that is killed at random may be killed again before it has written a checkpoint.
        patience = {"max_fruitless_attempts": "1000", "heartbeat_seconds": "1", "lease_seconds": "5"}
        with closing(Installation(data_dir, database_url=url, num_workers=2, **patience)) as installation:
            happened = run(installation, mix, KILLS | OTHERS, wanted, seed=arguments.seed, told=tell)
            installation.drain(seconds=600)
            found = violations(installation, expected)
            stories = list(read(installation.database).values())
    report(arguments, happened, stories, found, time.monotonic() - began)
    return 1 if found else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description="Kill parts of an installation.")
    for part, number in (("trainer", 200), ("worker", 50), ("api", 50), ("broker", 50)):
        parser.add_argument(f"--{part}-kills", type=int, default=number, help="SIGKILLs of it, at least")
    parser.add_argument("--others", type=int, default=5, help="how often each of the other faults happens")
    parser.add_argument("--postgresql", action="store_true", help="on a PostgreSQL server of its own, not SQLite")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6), help="of the order of the faults")
    return parser.parse_args()
