"""The worker from its start to its end: Celery, the slots, the reconciler, the upkeep of datasets."""

from __future__ import annotations

import logging
import signal
import sys

from celery import signals
from celery.platforms import EX_OK
from celery.worker import state

from worker import log_format
from worker.datasets.upkeep import Upkeep
from worker.devices import CapacityError, find_capacity
from worker.queue import make_celery
from worker.reconcile import Reconciler
from worker.settings import Settings
from worker.starters import make_starter
from worker.store.database import Database, DatabaseUnavailable
from worker.tasks import Worker, register_task

BLOCKING_SOCKET_SECONDS = 4.0
"""A living broker answers within a second, also when no bell comes. For one that does not, the worker's stop waits."""

logger = logging.getLogger(__name__)


def serve() -> int:
    """Work until a signal comes, with the process's settings; returns the exit code."""
    settings = Settings()
    log_format.configure(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        capacity = find_capacity(settings)
        database = Database(settings.resolved_database_url())
        database.migrate()
        starter = make_starter(settings, capacity.threads)
        worker = Worker(database, settings, capacity, starter)
        _drain_on_signals(worker)
        worker.start()
    except (CapacityError, DatabaseUnavailable) as error:
        sys.stderr.write(f"the worker cannot start: {error}\n")
        return 1
    app = make_celery(settings, socket_seconds=BLOCKING_SOCKET_SECONDS)
    register_task(app, worker)
    reconciler = Reconciler(database, make_celery(settings), settings)
    reconciler.start()
    upkeep = Upkeep(database, settings)
    upkeep.start()
    signals.setup_logging.connect(_leave_logging)
    try:
        if not worker.draining.is_set():
            app.worker_main(_arguments(worker.id, capacity.slots))
    finally:
        upkeep.stop()
        worker.stop()
        starter.close()
        reconciler.stop()
    return 0


def _drain_on_signals(worker: Worker) -> None:
    """Hear SIGTERM and Ctrl-C from now on: until Celery has come up by ourselves, then through Celery."""

    def drain(**_: object) -> None:
        worker.draining.set()

    def drain_and_stop(*_: object) -> None:
        drain()
        state.should_stop = EX_OK  # Celery looks at it as soon as it has come up

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, drain_and_stop)
    # Sent from Celery's signal handler, before it waits for its tasks.
    signals.worker_shutting_down.connect(drain, weak=False)


def _leave_logging(**_: object) -> None:
    """Celery configures the logging itself where nobody answers this signal."""


def _arguments(worker_id: str, slots: int) -> list[str]:
    """Threads, because a forked pool hears no SIGTERM; no talk among workers, because they meet in the store."""
    switches = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    return ["--quiet", "worker", "--pool=threads", f"--concurrency={slots}", f"--hostname={worker_id}@%h", *switches]
