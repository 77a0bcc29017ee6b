"""Puts right what nobody else can: takes silent jobs back from lost workers, rings for jobs without a bell, and
resumes jobs when a full disk has room again.

Running it in many processes is harmless: taking back is a compare-and-set, and bells are only hints.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from worker.disk import has_room
from worker.queue import num_bells, ring
from worker.settings import Settings
from worker.store import claims, intents, retries
from worker.store.database import Database, DatabaseUnavailable
from worker.store.retries import Heartbeat, RetryPolicy

logger = logging.getLogger(__name__)

WATCHES_PER_HEARTBEAT = 4
"""Reads further apart than a heartbeat do not count, so that they must be clearly closer."""
RING_SECONDS = 2.0
ROOM_SECONDS = 2.0
MAX_BELLS = 100
"""A worker that is rung once works until nothing is left, so that more bells than workers are not needed."""


@dataclass(frozen=True)
class _Sighting:
    heartbeat: Heartbeat
    since: float


class Reconciler:
    """Three threads: one watches heartbeats, one rings, which a frozen broker may hold up, one looks at the disk.

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
        self._look_now = threading.Event()
        watch = self.tick, self._watch_now, settings.heartbeat_seconds / WATCHES_PER_HEARTBEAT
        ring = self.ring_missing, self._ring_now, RING_SECONDS
        look = self.resume_where_room, self._look_now, ROOM_SECONDS
        self._threads = [
            threading.Thread(target=self._repeat, args=watch, name="watch", daemon=True),
            threading.Thread(target=self._repeat, args=ring, name="ring", daemon=True),
            threading.Thread(target=self._repeat, args=look, name="room", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the threads to end; they do so within seconds, and are not waited for."""
        self._stopping = True
        self._watch_now.set()
        self._ring_now.set()
        self._look_now.set()

    def tick(self) -> None:
        """Look at every running job once, and take back those that were silent for a whole lease.

        A lease is measured only by what this observer has itself seen, on its own clock: the same counter for
        `lease_seconds`, with no two successful reads further apart than `heartbeat_seconds`. After an outage of the
        database, a frozen observer or a jump of the time of day it begins anew, so that nobody is expired in error.

        Raises:
            DatabaseUnavailable: the database is away; what was seen before no longer counts.
        """
        begun = self._clock()
        # As a writer: while nobody can write, healthy workers are silent, too.
        with self._database.write() as c:
            running = retries.running(c)
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
            queued = claims.claimable_ids(c, limit=MAX_BELLS)
        bells = num_bells(self._app) if queued else None
        if bells is None:
            return
        for job_id in queued[bells:]:
            if not ring(self._app, job_id):
                return

    def resume_where_room(self) -> None:
        """Queue the jobs that met a full disk and would find room now, the one that has waited longest first.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self._database.read() as c:
            waiting = claims.waiting_for_room(c)
        for job_id in waiting:
            if not has_room(self._settings.data_dir, job_id):
                continue
            with self._database.write() as c:
                resumed = intents.resume_from_disk_full(c, job_id)
            if resumed:
                logger.info("job %s goes on: the disk has room again", job_id)
                self._ring_now.set()

    def _take_back(self, seen: Heartbeat) -> None:
        policy = RetryPolicy.of(self._settings)
        try:
            with self._database.write() as c:
                job = retries.take_back(c, seen.job_id, seen.token, seen.counter, policy=policy)
        except DatabaseUnavailable:
            # What could not be written, such as on a full disk, the holder could not write either.
            self._sightings = {}
            raise
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
