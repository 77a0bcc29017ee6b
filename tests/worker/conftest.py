from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from worker.store.database import Database

CGROUPS = Path("/sys/fs/cgroup")


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
def small_cgroup() -> Iterator[Path]:
    """A control group whose processes may have 64 MB."""
    v2 = (CGROUPS / "cgroup.controllers").exists()
    folder = (CGROUPS if v2 else CGROUPS / "memory") / f"epochd-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(64 * 2**20))
    except OSError as error:
        pytest.skip(f"no control group with a limit can be made here: {error}")
    yield folder
    folder.rmdir()


@pytest.fixture
def spec() -> TrainingSpec:
    return TrainingSpec.model_validate_json(
        """{"dataset": {"type": "digits"},
            "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
            "optimizer": {"type": "sgd", "lr": 0.1}}"""
    )
