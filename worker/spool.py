"""Lines that a trainer has sent and nobody has recorded yet: few of them in memory, the rest on the disk."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

MAX_LINES_IN_MEMORY = 1000
CHUNK = 64 * 1024
MAX_BYTES_ON_DISK = 256 * 2**20


class Spool:
    """A queue between the thread that reads a trainer's pipe and the one that writes to the database.

    Its file has no name, so that it is gone with the process: the next attempt tells again what was lost.

    Args:
        folder: where the file is, if one is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._first: deque[bytes] = deque()
        self._file: IO[bytes] | None = None
        self._read_to = 0
        self._written_to = 0
        self._last: deque[bytes] = deque()
        """Behind those in the file, when it takes no more."""

    @property
    def full(self) -> bool:
        """Whether nothing should be put now, as after hours without a database, or on a full disk."""
        with self._lock:
            return bool(self._last) or self._written_to - self._read_to >= MAX_BYTES_ON_DISK

    def put(self, line: bytes) -> None:
        """Append a line, without its end."""
        with self._lock:
            if self._last:
                self._last.append(line)
            elif self._file is None and len(self._first) < MAX_LINES_IN_MEMORY:
                self._first.append(line)
            else:
                self._write(line)

    def take(self, count: int) -> list[bytes]:
        """Remove the oldest lines, at most so many; empty when there are none."""
        with self._lock:
            if not self._first:
                self._refill()
            return [self._first.popleft() for _ in range(min(count, len(self._first)))]

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, line: bytes) -> None:
        """Append to the file, of which a line that did not fit whole is no part."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  (it stays open)
                self._read_to = self._written_to = 0
            self._file.seek(self._written_to)
            if self._file.write(line + b"\n") > len(line):
                self._written_to = self._file.tell()
                return
            reason = "the disk is full"
        except OSError as error:
            reason = str(error)
        logger.warning("the messages of a trainer cannot wait on the disk, so that it must: %s", reason)
        self._last.append(line)

    def _refill(self) -> None:
        """Bring the oldest lines of the file to memory; when none is left, those behind it."""
        if self._file is None:
            self._first, self._last = self._last, deque()
            return
        size, end = CHUNK, 0
        while self._read_to < self._written_to and not end:
            self._file.seek(self._read_to)
            chunk = self._file.read(min(size, self._written_to - self._read_to))
            end = chunk.rfind(b"\n") + 1
            size *= 2
        if end:
            self._first.extend(chunk[: end - 1].split(b"\n"))
            self._read_to += end
        else:
            self._file.close()
            self._file = None
            self._refill()
