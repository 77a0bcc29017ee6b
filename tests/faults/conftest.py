from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from cnn.determinism import set_threads
from cnn.spec import TrainingSpec
from tests.faults.installation import Installation
from tests.faults.invariants import violations
from tests.faults.mix import make_mix
from tests.faults.reference import Outcome, undisturbed_mix

# As many as the trainers of an installation have: results depend on it.
set_threads(1)

QUICK = {"heartbeat_seconds": "1", "lease_seconds": "3", "cancel_grace_seconds": "3"}
"""A lease that tests can wait for. It is shorter than the time after which an abandoned trainer ends by itself, so that
two trainers of one job really run at once."""


class Start(Protocol):
    def __call__(self, *, database_url: str | None = None, num_workers: int = 1, **settings: str) -> Installation: ...


class Settle(Protocol):
    def __call__(self, installation: Installation) -> None: ...


@pytest.fixture(scope="session")
def mix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingSpec]:
    return make_mix(tmp_path_factory.mktemp("colours"), epochs=16)


@pytest.fixture(scope="session")
def long(mix: dict[str, TrainingSpec]) -> TrainingSpec:
    """A job of seconds instead of tenths."""
    spec = mix["05-adam"]
    training = spec.training.model_copy(update={"epochs": 120})
    return spec.model_copy(update={"training": training, "early_stopping": None})


@pytest.fixture(scope="session")
def expected(
    mix: dict[str, TrainingSpec], long: TrainingSpec, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    return undisturbed_mix({**mix, "long": long}, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an installation of one's own, which is gone after the test."""
    started: list[Installation] = []

    def start(*, database_url: str | None = None, num_workers: int = 1, **settings: str) -> Installation:
        options = {**QUICK, **settings}
        started.append(Installation(tmp_path, database_url=database_url, num_workers=num_workers, settings=options))
        return started[-1]

    yield start
    for installation in started:
        installation.close()


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with two workers that many tests share; each leaves it whole."""
    shared = Installation(tmp_path_factory.mktemp("shared"), num_workers=2, settings=QUICK)
    yield shared
    shared.close()


@pytest.fixture
def settle(expected: dict[str, Outcome]) -> Settle:
    """Drain an installation, and check every invariant for all that has ever happened there."""

    def settle(installation: Installation) -> None:
        installation.drain()
        found = violations(installation, expected)
        assert not found, "\n".join(found)

    return settle
