"""Follows the events of all jobs for everybody in this process: one reader of the store, many listeners."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from worker.store import event_log
from worker.store.database import Database, DatabaseUnavailable
from worker.store.event_log import LoggedEvent

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
UNHEARD_SECONDS = 1.0
"""While nobody listens: a poll in vain takes time from the jobs that train on this machine."""
OUTAGE_SECONDS = 1.0
BATCH = 500
CAPACITY = 1000
"""Events that may wait for one listener; at least a whole batch."""
MAX_PER_KEY = 100
"""Listeners that the requests of one API key may have at once."""


class Listener:
    """The events that somebody wants, from the moment on at which they began to listen. Belongs to the event loop."""

    def __init__(self, wants: Callable[[LoggedEvent], bool]) -> None:
        self._wants = wants
        self._waiting: list[LoggedEvent] = []
        self._ready = asyncio.Event()
        self._closed = False

    def offer(self, events: Sequence[LoggedEvent]) -> None:
        """Hand over new events. A listener with too many of them waiting is closed."""
        wanted = [event for event in events if self._wants(event)]
        if len(self._waiting) + len(wanted) > CAPACITY:
            self.close()
        elif wanted and not self._closed:
            self._waiting += wanted
            self._ready.set()

    def close(self) -> None:
        """Nothing more comes; what waits is thrown away."""
        self._closed = True
        self._waiting = []
        self._ready.set()

    async def next(self, seconds: float) -> list[LoggedEvent] | None:
        """What came since the last call, waited for if need be; empty after `seconds`, None when nothing more comes."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return []
        if self._closed:
            return None
        self._ready.clear()
        taken, self._waiting = self._waiting, []
        return taken


class Tailer:
    """A thread that reads new events and hands them to the listeners.

    Who listens first and then reads what is stored misses nothing, and may see some events twice.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: set[Listener] = set()
        self._per_key: Counter[str] = Counter()
        self._last = 0
        self._ended = False
        self._stopping = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def num_listeners(self) -> int:
        return len(self._listeners)

    def has_room(self, key_id: str | None) -> bool:
        """Whether requests with this API key (with none: any) may have one more listener."""
        return key_id is None or self._per_key[key_id] < MAX_PER_KEY

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with the events that come from now on.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self._database.read() as c:
            self._last = event_log.last_number(c)
        self._thread = threading.Thread(target=self._run, args=(loop,), name="tailer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def listen(self, wants: Callable[[LoggedEvent], bool], key_id: str | None = None) -> Iterator[Listener]:
        """A listener for a request with this API key; a closed one where the key has no room for it."""
        listener = Listener(wants)
        if self._ended or not self.has_room(key_id):
            listener.close()
        self._listeners.add(listener)
        self._wake.set()
        if key_id is not None:
            self._per_key[key_id] += 1
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if key_id is not None:
                self._per_key[key_id] -= 1

    def end_streams(self) -> None:
        """Close all listeners, now and from now on: the server is about to stop."""
        self._ended = True
        for listener in self._listeners:
            listener.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping:
            try:
                num_read = self._read(loop)
            except DatabaseUnavailable as error:
                logger.warning("events cannot be followed: %s", error)
                self._pause(OUTAGE_SECONDS)
            else:
                if num_read < BATCH:
                    self._pause(POLL_SECONDS if self._listeners else UNHEARD_SECONDS)

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until somebody begins to listen or the server stops."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _read(self, loop: asyncio.AbstractEventLoop) -> int:
        with self._database.read() as c:
            unnumbered = event_log.has_unnumbered(c)
            events = [] if unnumbered else event_log.after(c, self._last, BATCH)
        if unnumbered:
            with self._database.write() as c:
                event_log.give_numbers(c)
                events = event_log.after(c, self._last, BATCH)
        if events:
            self._last = events[-1].number
        if events and self._listeners:  # who begins to listen from here on has yet to read what is stored
            loop.call_soon_threadsafe(self._hand_over, events)
        return len(events)

    def _hand_over(self, events: Sequence[LoggedEvent]) -> None:
        for listener in self._listeners:
            listener.offer(events)
