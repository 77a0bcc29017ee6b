"""Long polls: `Prefer: wait=30` (RFC 7240) holds an answer back until there is something new to say."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from fastapi import Response
from starlette.concurrency import run_in_threadpool

from server.auth import Caller
from server.files import etag_matches
from server.tailer import Tailer
from worker.store.event_log import LoggedEvent

MAX_SECONDS: Final = 60.0
QUEUE_EVENTS: Final = ("job.status", "job.changed")
"""What moves other jobs in the queue."""
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})")


def wait_seconds(prefer: str | None) -> float:
    """How long a `Prefer` header lets us wait; 0 without one that we understand."""
    found = _WAIT.search(prefer.lower()) if prefer else None
    return min(float(found[1]), MAX_SECONDS) if found else 0.0


async def changed(
    tailer: Tailer, caller: Caller, job_id: str, known: str, seconds: float, current: Callable[[], Response]
) -> Response:
    """What `current` answers as soon as its entity tag is none of those in `known`, or after `seconds`."""
    deadline = time.monotonic() + seconds

    def matters(event: LoggedEvent) -> bool:
        return event.job_id == job_id or event.type in QUEUE_EVENTS

    with tailer.listen(matters, caller.owner_id) as listener:
        while True:
            response = await run_in_threadpool(current)
            left = deadline - time.monotonic()
            if left <= 0 or not etag_matches(known, response.headers["ETag"]):
                return response
            if await listener.next(left) is None:
                return response
