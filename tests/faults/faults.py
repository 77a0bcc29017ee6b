"""What can happen to an installation. Each fault leaves it whole again, and says whether it found its victim."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random

from sqlalchemy import text

from tests.faults.installation import Installation
from tests.integration.processes import children, command_line, hears_sigterm, wait_until
from worker.queue import ring

Fault = Callable[[Installation, Random], bool]

NUM_BELLS = 30
VICTIM_SECONDS = 10.0


def kill_trainer(installation: Installation, random: Random) -> bool:
    deadline = time.monotonic() + VICTIM_SECONDS
    while not (found := installation.trainers):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.2))
    try:
        os.kill(random.choice(sorted(found)), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def kill_worker(installation: Installation, random: Random) -> bool:
    worker = random.choice(installation.workers)
    worker.kill()
    worker.start()
    return True


def launchers(installation: Installation) -> list[int]:
    """The warm processes that trainers are forked from, as far as they are there."""
    by_parent = children()
    return [
        pid
        for worker in installation.workers
        for pid in by_parent.get(worker.pid, [])
        if "worker.launcher" in command_line(pid)
    ]


def kill_launcher(installation: Installation, random: Random) -> bool:
    found = launchers(installation)
    if not found:
        return False
    with suppress(ProcessLookupError):
        os.kill(random.choice(found), signal.SIGKILL)
    return True


def kill_api(installation: Installation, _random: Random) -> bool:
    installation.api.kill()
    installation.api.start()
    return True


def kill_broker(installation: Installation, _random: Random) -> bool:
    installation.kill_broker()
    installation.valkey.start()
    return True


def wipe_broker(installation: Installation, _random: Random) -> bool:
    installation.wipe_broker()
    return True


def freeze_broker(installation: Installation, random: Random) -> bool:
    with installation.frozen_broker():
        time.sleep(random.uniform(1, 4))
    return True


def freeze_worker(installation: Installation, random: Random) -> bool:
    """For longer than a lease: its job goes on elsewhere, and it wakes up as a zombie."""
    with random.choice(installation.workers).frozen():
        time.sleep(installation.settings.lease_seconds + random.uniform(0, 2))
    return True


def freeze_api(installation: Installation, random: Random) -> bool:
    with installation.api.frozen():
        time.sleep(random.uniform(1, 4))
    return True


def stop_worker(installation: Installation, random: Random) -> bool:
    """SIGTERM: its job writes a checkpoint and waits for the next worker."""
    worker = random.choice(installation.workers)
    wait_until(lambda: hears_sigterm(worker.pid))
    code = worker.stop()
    assert code == 0, f"a worker that was told to stop ended with {code}\n{installation.logs()}"
    worker.start()
    return True


def lock_database(installation: Installation, random: Random) -> bool:
    with locked(installation):
        time.sleep(random.uniform(1, installation.settings.lease_seconds + 1))
    return True


def jump_clock(installation: Installation, random: Random) -> bool:
    """By up to an hour, back or ahead."""
    if installation.clock is None:
        return False
    installation.clock.set(random.randint(-3600, 3600))
    return True


def ring_often(installation: Installation, random: Random) -> bool:
    """Bells for a job that waits, runs or has ended: what a queue that delivers twice does."""
    job_ids = sorted(installation.client.promises)
    return bool(job_ids) and all([ring(installation.celery, random.choice(job_ids)) for _ in range(NUM_BELLS)])


@contextmanager
def locked(installation: Installation) -> Iterator[None]:
    """Nobody else can write to the database meanwhile."""
    with installation.database.write() as c:
        if c.dialect.name == "postgresql":
            c.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        yield


KILLS: dict[str, Fault] = {
    "trainer": kill_trainer,
    "worker": kill_worker,
    "API": kill_api,
    "broker": kill_broker,
}
"""SIGKILL, by its victim."""

OTHERS: dict[str, Fault] = {
    "launcher killed": kill_launcher,
    "broker wiped": wipe_broker,
    "broker frozen": freeze_broker,
    "worker frozen beyond its lease": freeze_worker,
    "API frozen": freeze_api,
    "worker stopped": stop_worker,
    "database locked": lock_database,
    "bells rung again": ring_often,
}

CLOCK: dict[str, Fault] = {"clock jumped": jump_clock}
"""Needs an installation that goes by a clock of its own."""
