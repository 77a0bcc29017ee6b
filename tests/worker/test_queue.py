from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from kombu.exceptions import ContentDisallowed

from worker.queue import QUEUE, make_celery, num_bells, ring
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


def test_a_pickle_in_the_queue_is_refused_and_not_run(tmp_path: Path) -> None:
    """The body would make the file if somebody loaded it."""
    canary = tmp_path / "canary"
    code = f"cbuiltins\nexec\n(Vopen({str(canary)!r}, 'w').close()\ntR."
    valkey = Valkey(tmp_path)
    valkey.start()
    app = make_celery(Settings(redis_url=valkey.url))
    refused: list[Exception] = []
    with app.connection_for_write() as connection:
        producer = connection.Producer()
        for content_type in ("application/x-python-serialize", "application/x-yaml"):
            producer.publish(code.encode(), routing_key=QUEUE, content_type=content_type, content_encoding="binary")
        consumer = app.amqp.TaskConsumer(connection.default_channel)
        consumer.on_decode_error = lambda message, error: (message.ack(), refused.append(error))
        consumer.register_callback(lambda *_: pytest.fail("the message was read"))
        with consumer:
            for _ in range(2):
                connection.drain_events(timeout=5)
    app.close()
    valkey.stop()
    assert [type(error) for error in refused] == [ContentDisallowed] * 2
    assert not canary.exists()


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


@pytest.mark.parametrize("module", ["worker.tasks", "worker.supervisor", "worker.reconcile", "worker.service"])
def test_supervising_needs_no_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
