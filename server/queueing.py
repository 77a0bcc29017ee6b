"""Where a waiting job stands, and when it is expected to start."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from server.schemas import Queue
from worker.jobs import Job
from worker.start_times import NEVER, StartTimes, start_times
from worker.store import claims

KEPT_SECONDS: Final = 2.0
ROUNDING: Final = timedelta(seconds=10)
"""Of an estimate: finer, it would change with every look."""


class QueueView:
    """Tells places in the queue. The expected start times of all jobs are computed at most every two seconds.

    Args:
        lease_seconds: a worker that was not seen for so long does not count.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._times = NEVER
        self._good_until = 0.0

    def place(self, c: Connection, job: Job) -> Queue | None:
        """None for a job that does not wait."""
        return self.places(c, [job]).get(job.id)

    def places(self, c: Connection, found: Sequence[Job]) -> dict[str, Queue]:
        """By id, the places of those that wait; the start is None where nothing can be said of it."""
        positions = claims.queue_positions(c, found)
        if not positions:
            return {}
        times = self._start_times(c)
        starts = {job.id: times.of(job) for job in found}
        return {
            job_id: Queue(
                position=position,
                ahead=position - 1,
                estimated_start_at=None if (start_at := starts[job_id]) is None else _rounded(start_at),
            )
            for job_id, position in positions.items()
        }

    def _start_times(self, c: Connection) -> StartTimes:
        with self._lock:
            if time.monotonic() > self._good_until:
                self._times = start_times(c, seconds=self._lease_seconds)
                self._good_until = time.monotonic() + KEPT_SECONDS
            return self._times


def _rounded(time: datetime) -> datetime:
    """The next whole ten seconds."""
    whole = time.replace(second=time.second - time.second % 10, microsecond=0)
    return whole if whole == time else whole + ROUNDING
