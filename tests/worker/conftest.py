from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from worker.store.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'epochd.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def spec() -> TrainingSpec:
    return TrainingSpec.model_validate_json(
        """{"dataset": {"type": "digits"},
            "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
            "optimizer": {"type": "sgd", "lr": 0.1}}"""
    )
