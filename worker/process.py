"""One trainer process: its start in a process group of its own, its pipes, its end.

A thread reads the trainer's messages and pings it. That thread never touches SQL, so that no database, however slow,
can make a healthy trainer look abandoned.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from worker.logs import open_log
from worker.spool import Spool
from worker.starters import Descriptors, Starter
from worker.store.attempts import Exit

logger = logging.getLogger(__name__)

PING_SECONDS = 2.0
POLL_SECONDS = 1.0
"""How long the thread sleeps when the trainer says nothing."""
ENDING_SECONDS = 0.01
"""The same when the trainer has closed its pipe, as it does when it ends."""

Message = dict[str, Any]


class TrainerProcess:
    """Starts a trainer, sends it `request` as its first line, and leaves nothing of its group behind.

    The trainer's descriptors: 0 requests and pings, 1 and 2 the log, 3 its messages, one JSON object per line.
    """

    def __init__(
        self,
        starter: Starter,
        *,
        environment: Mapping[str, str],
        log: Path,
        attempt: int,
        request: Message,
    ) -> None:
        self._spool = Spool(log.parent)
        self.exit = Exit()
        self._ended = threading.Event()
        self._heard = threading.Event()
        self._lock = threading.Lock()
        self._reaped = False
        log_descriptor = open_log(log, attempt)
        stdin, self._stdin = os.pipe()
        self._events, events = os.pipe()
        try:
            self._trainer = starter.start(environment, Descriptors(stdin, log_descriptor, events))
        except OSError:
            os.close(self._stdin)
            os.close(self._events)
            raise
        finally:
            for descriptor in (stdin, log_descriptor, events):
                os.close(descriptor)
        self.pid = self._trainer.pid
        os.set_blocking(self._events, False)
        os.set_blocking(self._stdin, False)
        self._thread = threading.Thread(
            target=self._attend, args=(json.dumps(request).encode() + b"\n",), name=f"trainer-{self.pid}", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._thread.join()
        self._spool.close()

    def wait(self, seconds: float) -> bool:
        """Whether the trainer has ended, and all its messages are there, after at most this time."""
        return self._ended.wait(seconds)

    def hear(self, seconds: float) -> None:
        """Wait for the next message, or the trainer's end, at most this time."""
        if not self._ended.is_set():
            self._heard.wait(seconds)

    def take(self, count: int = 100) -> list[Message]:
        """The oldest messages, each with the time `at` which it came, that were not taken yet; empty without any."""
        self._heard.clear()
        return [json.loads(line) for line in self._spool.take(count)]

    def terminate(self) -> None:
        """Ask the trainer to stop after its step; processes that it started are its own to end."""
        with self._lock:
            if not self._reaped:
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the trainer's whole process group."""
        with self._lock:
            if not self._reaped:
                os.killpg(self.pid, signal.SIGKILL)

    def _attend(self, request: bytes) -> None:
        incoming, outgoing = bytearray(), bytearray(request)
        at_end = False
        next_ping = time.monotonic() + PING_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while not self._reap():
                self._listen(selector, not at_end and not self._spool.full)
                for key, _ in selector.select(ENDING_SECONDS if at_end else POLL_SECONDS):
                    if key.fd == self._events:
                        at_end = not self._read(incoming)
                    elif not self._write(outgoing):
                        selector.unregister(key.fd)
                if time.monotonic() >= next_ping:
                    outgoing = outgoing or bytearray(b"ping\n")
                    self._write(outgoing)
                    next_ping = time.monotonic() + PING_SECONDS
        with suppress(BlockingIOError):  # what it has started may still hold the pipe
            while self._read(incoming):
                pass
        os.close(self._events)
        os.close(self._stdin)
        self._ended.set()
        self._heard.set()

    def _listen(self, selector: selectors.BaseSelector, wanted: bool) -> None:
        """Whether the trainer's messages are read: when they cannot wait anywhere, it waits, and is pinged."""
        if wanted and self._events not in selector.get_map():
            selector.register(self._events, selectors.EVENT_READ)
        elif not wanted and self._events in selector.get_map():
            selector.unregister(self._events)

    def _read(self, buffer: bytearray) -> bool:
        """Take in what the pipe holds; false at its end. A last line that a dying trainer cut off is dropped."""
        chunk = os.read(self._events, 65536)
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            try:
                message = json.loads(line) | {"at": datetime.now(UTC).isoformat()}
            except (ValueError, TypeError):
                logger.warning("trainer %d sent a line that is not a JSON object: %r", self.pid, line[:200])
            else:
                self._spool.put(json.dumps(message).encode())
                self._heard.set()
        return bool(chunk)

    def _write(self, outgoing: bytearray) -> bool:
        """Send what fits into the pipe; false when nothing is left to send."""
        try:
            del outgoing[: os.write(self._stdin, outgoing)]
        except BlockingIOError:
            pass  # a full pipe belongs to a frozen trainer, which is killed when its time is over
        except BrokenPipeError:
            outgoing.clear()  # it is about to end, or has closed its stdin and will not be pinged any more
        return bool(outgoing)

    def _reap(self) -> bool:
        with self._lock:
            exit = self._trainer.poll()
            if exit is None:
                return False
            self._reaped = True
            self.exit = exit
            # What the trainer started and left behind is still in its group.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._trainer.release()
        return True
