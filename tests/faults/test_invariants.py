"""An installation that nobody disturbs keeps all promises, and the checks find what is broken by hand."""

from __future__ import annotations

from collections.abc import Callable

from cnn.spec import TrainingSpec
from tests.faults.conftest import Start
from tests.faults.installation import Installation


def test_undisturbed(start: Start, mix: dict[str, TrainingSpec], settle: Callable[[Installation], None]) -> None:
    installation = start(num_workers=2)
    for name, spec in mix.items():
        installation.submit(name, spec)
        installation.client.look()
    settle(installation)
