"""Everything at once: a minute of faults in a random order. `make chaos` is the long campaign."""

from __future__ import annotations

from collections import Counter

import pytest

from cnn.spec import TrainingSpec
from tests.faults.campaign import run
from tests.faults.conftest import Settle, Start
from tests.faults.faults import KILLS, OTHERS

WANTED = {
    "sqlite": {"trainer": 12, "worker": 3, "API": 3, "broker": 3} | dict.fromkeys(OTHERS, 1),
    "postgresql": {"trainer": 6, "worker": 2, "API": 2, "broker": 1},
}
SEED = 20261124


@pytest.mark.parametrize("backend", WANTED)
def test_jobs_end_with_the_same_bytes_whatever_happens(
    backend: str, start: Start, request: pytest.FixtureRequest, mix: dict[str, TrainingSpec], settle: Settle
) -> None:
    url = request.getfixturevalue("postgresql_url") if backend == "postgresql" else None
    # A trainer that is killed at random may be killed again before it has written a checkpoint.
    installation = start(database_url=url, num_workers=2, max_fruitless_attempts="1000")
    happened = run(installation, mix, KILLS | OTHERS, WANTED[backend], seed=SEED)
    settle(installation)
    assert Counter(WANTED[backend]) <= happened
