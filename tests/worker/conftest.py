from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from tests.worker.bench import Bench
from worker.settings import Settings
from worker.store import jobs
from worker.store.database import Database

CGROUPS = Path("/sys/fs/cgroup")
GROUP_BYTES = 512 * 2**20
"""More than the tests have in memory: who has more than the limit of its group is killed first, whatever it says."""
GREEDY = "open('/proc/self/oom_score_adj', 'w').write('1000'); bytearray(1024 * 2**20)"
"""A program that the kernel kills first where there is too little memory."""


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
    """A control group whose processes may have 512 MB."""
    v2 = (CGROUPS / "cgroup.controllers").exists()
    folder = (CGROUPS if v2 else CGROUPS / "memory") / f"epochd-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(GROUP_BYTES))
    except OSError as error:
        pytest.skip(f"no control group with a limit can be made here: {error}")
    yield folder
    folder.rmdir()


@pytest.fixture
def in_small_cgroup(small_cgroup: Path) -> Iterator[None]:
    """The tests are in it meanwhile; what they start there should offer itself to the kernel (see GREEDY)."""
    kind = "" if (CGROUPS / "cgroup.controllers").exists() else "memory"
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    (before,) = [CGROUPS / kind / name.lstrip("/") for _, controllers, name in lines if controllers == kind]
    (small_cgroup / "cgroup.procs").write_text(str(os.getpid()))
    yield
    (before / "cgroup.procs").write_text(str(os.getpid()))


@pytest.fixture
def spec() -> TrainingSpec:
    return TrainingSpec.model_validate_json(
        """{"dataset": {"type": "digits"},
            "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
            "optimizer": {"type": "sgd", "lr": 0.1}}"""
    )


@pytest.fixture
def bench(tmp_path: Path, spec: TrainingSpec) -> Iterator[Bench]:
    settings = Settings(
        data_dir=tmp_path, heartbeat_seconds=0.2, cancel_grace_seconds=1, drain_grace_seconds=1, retry_backoff_seconds=0
    )
    database = Database(settings.resolved_database_url())
    database.migrate()
    with database.write() as c:
        job = jobs.create(c, spec=spec, name=None)
    yield Bench(database, settings, job.id)
    database.close()
