"""Kill what can be killed, hundreds of times, while jobs with every technique train; then check that nothing was lost.

    python -m benchmarks.chaos --trainer-kills 200 --worker-kills 50 --api-kills 50 --broker-kills 50

A whole installation (API, two workers, Valkey, SQLite or PostgreSQL) of real processes gets jobs from a client that
asks again when no answer comes. Each kind of SIGKILL happens at random moments at least as often as asked for, and
every other fault of `tests/faults/faults.py` `--others` times. Then the installation is left to finish its jobs, and
everything that `tests/faults/invariants.py` checks must hold, the weights and the deterministic metrics of every job
being those of an undisturbed run to the byte. The exit code is 1 if anything does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from random import SystemRandom

from benchmarks.alternation import table, write
from cnn.determinism import set_threads
from tests.faults.campaign import run
from tests.faults.clock import JumpingClock
from tests.faults.faults import CLOCK, KILLS, OTHERS
from tests.faults.installation import Installation
from tests.faults.invariants import Story, read, violations
from tests.faults.mix import make_mix
from tests.faults.reference import undisturbed_mix
from tests.postgresql import PostgreSQL
from worker.jobs import JobStatus

EPOCHS = 16
DRAIN_SECONDS = 600
SETTINGS = {
    "heartbeat_seconds": "1",
    "lease_seconds": "5",
    # A trainer that is killed at random may be killed again and again before it has written a checkpoint.
    "max_fruitless_attempts": "1000",
}


def main() -> int:
    arguments = parse_arguments()
    set_threads(1)
    wanted = {
        "trainer": arguments.trainer_kills,
        "worker": arguments.worker_kills,
        "API": arguments.api_kills,
        "broker": arguments.broker_kills,
        **dict.fromkeys(OTHERS, arguments.others),
    }
    if JumpingClock.can_be_built():
        wanted |= dict.fromkeys(CLOCK, arguments.others)
    began = time.monotonic()
    with workplace(arguments.folder) as folder, database(arguments.postgresql) as url:
        happened, stories, found = campaign(folder, url, wanted, arguments)
    report(arguments, happened, stories, found, time.monotonic() - began)
    return 1 if found else 0


def campaign(
    folder: Path, url: str | None, wanted: Mapping[str, int], arguments: argparse.Namespace
) -> tuple[Counter[str], list[Story], list[str]]:
    """What has happened, the story of every job, and what is not as promised."""
    clock = JumpingClock(folder) if JumpingClock.can_be_built() else None
    mix = make_mix(folder, epochs=EPOCHS)
    expected = undisturbed_mix(mix, folder / "undisturbed")
    started = Installation(folder, database_url=url, num_workers=2, clock=clock, settings=SETTINGS)
    with closing(started) as installation:
        try:
            happened = run(installation, mix, KILLS | OTHERS | CLOCK, wanted, seed=arguments.seed, told=tell)
            installation.drain(seconds=DRAIN_SECONDS)
            return happened, list(read(installation.database).values()), violations(installation, expected)
        except AssertionError:
            print(installation.logs(), file=sys.stderr)
            raise


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="epochd-chaos-") as temporary:
        yield Path(temporary)


@contextmanager
def database(postgresql: bool) -> Iterator[str | None]:
    if not postgresql:
        yield None
        return
    server = PostgreSQL()
    try:
        with server.empty_database() as url:
            yield url
    finally:
        server.remove()


def tell(happened: Counter[str]) -> None:
    if sys.stdout.isatty():
        print(f"\r{sum(happened.values())} faults", end="", flush=True)


def report(
    arguments: argparse.Namespace, happened: Counter[str], stories: list[Story], found: list[str], seconds: float
) -> None:
    command = (
        f"`python -m benchmarks.chaos --trainer-kills {arguments.trainer_kills} "
        f"--worker-kills {arguments.worker_kills} --api-kills {arguments.api_kills} "
        f"--broker-kills {arguments.broker_kills} --others {arguments.others} --seed {arguments.seed}"
        f"{' --postgresql' * arguments.postgresql}`"
    )
    attempts = Counter(attempt.reason for story in stories for attempt in story.attempts)
    same = len(stories) - len({sentence.split(" of ")[-1] for sentence in found if sentence.startswith("I12")})
    faults = [[f"SIGKILL of {name}" if name in KILLS else name, str(count)] for name, count in happened.items()]
    results = [
        ["jobs accepted", str(len(stories))],
        ["succeeded", str(sum(story.job.status == JobStatus.SUCCEEDED for story in stories))],
        ["weights and deterministic metrics as undisturbed, to the byte", str(same)],
        ["attempts", str(sum(attempts.values()))],
        ["most attempts at one job", str(max(len(story.attempts) for story in stories))],
        *[[f"attempts that ended with {reason}", str(count)] for reason, count in attempts.most_common()],
        ["violations of I1 to I12", str(len(found))],
        ["minutes", f"{seconds / 60:.1f}"],
    ]
    backend = "PostgreSQL" if arguments.postgresql else "SQLite"
    notes = [
        f"{command} on {backend}, two workers of one slot and one thread, a lease of {SETTINGS['lease_seconds']} s. "
        "Jobs and faults are those of `tests/faults`: every optimizer, regularizer, dropout, augmentation, "
        "normalization and schedule is in some job.",
        "" if JumpingClock.can_be_built() else "The clock did not jump: there is no C compiler.",
        "\n".join(f"- {sentence}" for sentence in found),
    ]
    print()
    tables = [table(["fault", "times"], sorted(faults)), table(["outcome", "number"], results)]
    write(f"chaos{'-postgresql' * arguments.postgresql}", "Chaos", tables, notes)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description="Kill parts of an installation.")
    for part, number in (("trainer", 200), ("worker", 50), ("api", 50), ("broker", 50)):
        parser.add_argument(f"--{part}-kills", type=int, default=number, help="SIGKILLs of it, at least")
    parser.add_argument("--others", type=int, default=5, help="how often each of the other faults happens")
    parser.add_argument("--postgresql", action="store_true", help="on a PostgreSQL server of its own, not SQLite")
    parser.add_argument("--folder", type=Path, help="a new folder that keeps everything; a temporary one without it")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6), help="of the order of the faults")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
