"""`python -m worker`: claims jobs and trains them, until SIGTERM or Ctrl-C sends its jobs back to the queue."""

from __future__ import annotations

import logging
import sys

from celery import signals

from worker.devices import CapacityError, find_capacity
from worker.queue import make_celery
from worker.reconcile import Reconciler
from worker.settings import Settings
from worker.store.database import Database, DatabaseUnavailable
from worker.tasks import Worker, register_task

TRAINER = (sys.executable, "-m", "worker.trainer")
BLOCKING_SOCKET_SECONDS = 15.0

logger = logging.getLogger(__name__)


def main() -> int:
    settings = Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        capacity = find_capacity(settings)
        database = Database(settings.resolved_database_url())
        database.migrate()
        worker = Worker(database, settings, capacity, command=TRAINER)
        worker.start()
    except (CapacityError, DatabaseUnavailable) as error:
        sys.stderr.write(f"the worker cannot start: {error}\n")
        return 1
    app = make_celery(settings, socket_seconds=BLOCKING_SOCKET_SECONDS)
    register_task(app, worker)
    reconciler = Reconciler(database, make_celery(settings), settings)
    reconciler.start()

    def drain(**_: object) -> None:
        worker.draining.set()

    # Sent from the signal handler, before Celery waits for its tasks.
    signals.worker_shutting_down.connect(drain)
    try:
        app.worker_main(_arguments(worker.id, capacity.slots))
    finally:
        worker.stop()
        reconciler.stop()
    return 0


def _arguments(worker_id: str, slots: int) -> list[str]:
    """Threads, because a forked pool hears no SIGTERM; no talk among workers, because they meet in the store."""
    switches = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    return ["--quiet", "worker", "--pool=threads", f"--concurrency={slots}", f"--hostname={worker_id}@%h", *switches]


if __name__ == "__main__":
    sys.exit(main())
