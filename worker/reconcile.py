"""Puts right what nobody else can: takes silent jobs back from lost workers, and rings for jobs without a bell.

Running it in many processes is harmless: taking back is a compare-and-set, and bells are only hints.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from worker.queue import num_bells, ring
from worker.settings import Settings
from worker.store import attempts, jobs, retries
from worker.store.attempts import Heartbeat
from worker.store.database import Database, DatabaseUnavailable
from worker.store.retries import RetryPolicy

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
RING_SECONDS = 2.0
MAX_BELLS = 100
"""A worker that is rung once works until nothing is left, so that more bells than workers are not needed."""


@dataclass(frozen=True)
class _Sighting:
    heartbeat: Heartbeat
    since: float


class Reconciler:
    """Two threads: one watches heartbeats, the other, which a frozen broker may hold up, rings.

    Args:
        clock: seconds that never jump.
    """

    def __init__(
        self, database: Database, app: Celery, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._app = app
        self._settings = settings
        self._clock = clock
        self._sightings: dict[str, _Sighting] = {}
        self._last_read: float | None = None
        self._stopping = False
        self._watch_now = threading.Event()
        self._ring_now = threading.Event()
        watch = self.tick, self._watch_now, WATCH_SECONDS
        ring = self.ring_missing, self._ring_now, RING_SECONDS
        self._threads = [
            threading.Thread(target=self._repeat, args=watch, name="watch", daemon=True),
            threading.Thread(target=self._repeat, args=ring, name="ring", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the threads to end; they do so within seconds, and are not waited for."""
        self._stopping = True
        self._watch_now.set()
        self._ring_now.set()

    def tick(self) -> None:
        """Look at every running job once, and take back those that were silent for a whole lease.

        A lease is measured only by what this observer has itself seen, on its own clock: the same counter for
        `lease_seconds`, with no two successful reads further apart than `heartbeat_seconds`. After an outage of the
        database, a frozen observer or a jump of the time of day it begins anew, so that nobody is expired in error.

        Raises:
            DatabaseUnavailable: the database is away; what was seen before no longer counts.
        """
        begun = self._clock()
        with self._database.read() as c:
            running = attempts.running(c)
        read = self._clock()
        gap = self._last_read is None or read - self._last_read > self._settings.heartbeat_seconds
        self._last_read = read
        earlier = {} if gap else self._sightings
        self._sightings = {
            heartbeat.job_id: _sighting(earlier.get(heartbeat.job_id), heartbeat, read) for heartbeat in running
        }
        for sighting in self._sightings.values():
            # A slow read must not count as silence: from the end of the first one to the begin of this one.
            if begun - sighting.since >= self._settings.lease_seconds:
                self._take_back(sighting.heartbeat)

    def ring_missing(self) -> None:
        """Ring once for every job that waits without a bell, such as after Redis lost its memory.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self._database.read() as c:
            queued = jobs.claimable_ids(c, limit=MAX_BELLS)
        bells = num_bells(self._app) if queued else None
        if bells is None:
            return
        for job_id in queued[bells:]:
            if not ring(self._app, job_id):
                return

    def _take_back(self, seen: Heartbeat) -> None:
        policy = RetryPolicy.of(self._settings)
        with self._database.write() as c:
            job = retries.take_back(c, seen.job_id, seen.token, seen.counter, policy=policy)
        if job is not None:
            logger.warning("job %s was taken back from the lost worker %s: %s", job.id, job.worker_id, job.status)
            self._ring_now.set()

    def _repeat(self, action: Callable[[], None], now: threading.Event, seconds: float) -> None:
        while True:
            now.wait(seconds)
            now.clear()
            if self._stopping:
                return
            try:
                action()
            except DatabaseUnavailable as error:
                logger.warning("cannot reconcile: %s", error)


def _sighting(earlier: _Sighting | None, heartbeat: Heartbeat, now: float) -> _Sighting:
    return earlier if earlier is not None and earlier.heartbeat == heartbeat else _Sighting(heartbeat, now)
