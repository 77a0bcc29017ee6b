"""State of what is followed over many requests (a job, events, a log), without sending anything."""

from __future__ import annotations

import codecs
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import httpx

from server.client.calls import Call, job_path
from server.client.errors import ClientError, Unavailable, Unreachable
from server.schemas import Event, Job

WAIT_SECONDS: Final = 30
SILENCE_SECONDS: Final = 40.0
"""A stream sends a sign of life every 15 s: one that says nothing for longer than this is lost."""
POLL_SECONDS: Final = 0.5
RECONNECT_SECONDS: Final = 0.1

_BEHIND_THE_END: Final = httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE

E = TypeVar("E", bound=Event)


class Patience:
    """How long a server may be away before we give up.

    Args:
        seconds: counted from when something was last heard of it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._heard_at = time.monotonic()
        self._delay = RECONNECT_SECONDS

    def heard(self) -> None:
        self._heard_at = time.monotonic()
        self._delay = RECONNECT_SECONDS

    def lost(self, error: ClientError) -> float:
        """Seconds after which to try again; raises the error where that is too late, or useless."""
        silent = time.monotonic() - self._heard_at
        if not isinstance(error, Unreachable | Unavailable) or silent > self._seconds:
            raise error
        self._delay = min(self._delay * 2, 2.0)
        return self._delay


class Waiting:
    """Waits for a job with long polls."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._etag: str | None = None
        self.pause_seconds = 0.0
        """How long to wait before the next request: not at all, where the server waits for us."""

    def call(self) -> Call[Job | None]:
        """Reads the job, or None when it has not changed."""
        known = {"If-None-Match": self._etag, "Prefer": f"wait={WAIT_SECONDS}"} if self._etag else {}
        return Call(self._read, "GET", job_path(self._job_id), headers=known, wait_seconds=WAIT_SECONDS)

    def _read(self, response: httpx.Response) -> Job | None:
        waited = "Preference-Applied" in response.headers or self._etag is None
        self.pause_seconds = 0.0 if waited else POLL_SECONDS
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return None
        self._etag = response.headers["ETag"]
        return Job.model_validate_json(response.content)


class EventReader(Generic[E]):
    """Reads server-sent events, and knows where to continue after a cut.

    Args:
        after: id of the last event that is known; None for the present.
    """

    def __init__(self, event_type: type[E], path: str, after: int | None, types: Sequence[str]) -> None:
        self._event_type = event_type
        self.path = path
        self._after = after
        self._types = types
        self._text = ""
        self.has_ended = False

    def options(self) -> dict[str, Any]:
        """For `httpx.Client.stream`: what was read of a message that was cut is forgotten."""
        self._text = ""
        params: dict[str, str | int] = {"types": ",".join(self._types)} if self._types else {}
        headers = {"Accept": "text/event-stream"}
        if self._after is not None:
            headers["Last-Event-ID"] = str(self._after)
        return {"params": params, "headers": headers, "timeout": SILENCE_SECONDS}

    def feed(self, text: str) -> list[E]:
        """The events that are complete now."""
        *blocks, self._text = (self._text + text).split("\n\n")
        return [event for block in blocks for event in self._message(_fields(block))]

    def _message(self, fields: Mapping[str, str]) -> list[E]:
        if "id" in fields:
            self._after = int(fields["id"])
        if fields.get("event") == "end":
            self.has_ended = True
        elif "data" in fields:
            return [self._event_type.model_validate_json(fields["data"])]
        return []


class LogReader:
    """Reads a log that grows, piece by piece."""

    def __init__(self, job_id: str) -> None:
        self._path = job_path(job_id, "logs")
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def call(self) -> Call[str]:
        """Reads what has come since the last piece."""
        place = {"Range": f"bytes={self._offset}-"}
        return Call(self._read, "GET", self._path, headers=place, expected=(_BEHIND_THE_END,))

    def _read(self, response: httpx.Response) -> str:
        if response.status_code == _BEHIND_THE_END:
            return ""
        self._offset += len(response.content)
        return self._decoder.decode(response.content)


def _fields(block: str) -> dict[str, str]:
    lines = (line.partition(":") for line in block.split("\n") if not line.startswith(":"))
    return {name: value.removeprefix(" ") for name, _, value in lines}
