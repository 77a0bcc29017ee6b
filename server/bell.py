"""Rings workers without making anybody wait: a request is answered before the queue has been asked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress

MAX_PENDING = 100


class Bell:
    """A thread that rings for one job after the other.

    A ring is only a hint: with a dead broker the pending ones are dropped, and the reconciler rings later.
    """

    def __init__(self, ring: Callable[[str], object]) -> None:
        self._ring = ring
        self._pending: queue.Queue[str | None] = queue.Queue(MAX_PENDING)
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        self._thread.start()

    def ring(self, job_id: str) -> None:
        with suppress(queue.Full):
            self._pending.put_nowait(job_id)

    def close(self, timeout: float = 5.0) -> None:
        """Ring what is pending, then end; what a dead broker holds up for longer is left to the reconciler."""
        self._pending.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (job_id := self._pending.get()) is not None:
            self._ring(job_id)
