from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.queue import make_celery, num_bells, ring
from worker.settings import Settings
from worker.valkey import Valkey


def test_bells_wait_until_a_worker_hears_them(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    valkey.start()
    app = make_celery(Settings(redis_url=valkey.url))
    assert num_bells(app) == 0
    assert [ring(app, f"job_{number}") for number in range(3)] == [True] * 3
    assert num_bells(app) == 3
    app.close()
    valkey.stop()


@pytest.mark.parametrize("url", ["redis+socket:///nowhere/valkey.sock", "redis://:secret@127.0.0.1:1/0"])
def test_a_broker_that_is_away_is_no_error_and_no_wait(url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make_celery(Settings(redis_url=url))
    began = time.monotonic()
    assert not ring(app, "job_1")
    assert num_bells(app) is None
    assert time.monotonic() - began < 3
    assert "job_1" in caplog.text
    assert "secret" not in caplog.text
    app.close()


@pytest.mark.parametrize("module", ["worker.tasks", "worker.supervisor", "worker.reconcile", "worker.__main__"])
def test_supervising_needs_no_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
