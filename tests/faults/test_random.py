"""Everything at once: a minute of faults in a random order. `make chaos` is the long campaign."""

from __future__ import annotations

from collections import Counter

import pytest

from cnn.spec import TrainingSpec
from tests.faults.campaign import run
from tests.faults.conftest import Settle, Start
from tests.faults.faults import KILLS, OTHERS

KILLED = {"trainer": 12, "worker": 3, "API": 3, "broker": 3}
SEED = 20261124


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_jobs_end_with_the_same_bytes_whatever_happens(
    backend: str, start: Start, request: pytest.FixtureRequest, mix: dict[str, TrainingSpec], settle: Settle
) -> None:
    url = request.getfixturevalue("postgresql_url") if backend == "postgresql" else None
    # A trainer that is killed at random may be killed again before it has written a checkpoint.
    installation = start(database_url=url, num_workers=2, max_fruitless_attempts="1000")
    wanted = KILLED if backend == "postgresql" else dict.fromkeys(OTHERS, 1) | KILLED
    happened = run(installation, mix, KILLS | OTHERS, wanted, seed=SEED)
    settle(installation)
    assert Counter(wanted) <= happened
