"""Turns a trainer's messages into rows, in batches: a message waits here until its transaction is committed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from worker.jobs import Job
from worker.process import Message
from worker.store import attempts, events, metrics
from worker.store.metrics import Point

PROGRESS_SECONDS = 1.0
MAX_WAITING = 100
"""Messages of one transaction: no other writer of a SQLite waits for long."""


class Recorder:
    """The messages of one attempt.

    `last` is the message that says how it ended (empty before), `artifacts` those of its finished files.
    """

    def __init__(self, job: Job) -> None:
        self._held = job.id, job.token
        self._attempt = job.attempt
        self._waiting: list[Message] = []
        self._progress: Message | None = None
        self._progress_written = False
        self._next_progress = 0.0
        self._first: tuple[float, int] | None = None
        self.artifacts: list[Message] = []
        self.last: Message = {}

    def receive(self, message: Message) -> None:
        """Take in a message; of those about progress only the newest matters."""
        match message["type"]:
            case "progress":
                if self._first is None:
                    self._first = time.monotonic(), message["step"]
                self._progress = message | {"eta_at": self._eta(message)}
            case "artifact":
                self.artifacts.append(message)
            case "result" | "stopped" | "error":
                self.last = message
            case _:
                self._waiting.append(message)

    @property
    def room(self) -> int:
        """How many messages it should take in before the next transaction."""
        return max(0, MAX_WAITING - len(self._waiting))

    @property
    def pending(self) -> bool:
        """Whether something should be written now."""
        return bool(self._waiting) or self._progress_due

    @property
    def _progress_due(self) -> bool:
        return self._progress is not None and time.monotonic() >= self._next_progress

    def write(self, c: Connection, *, everything: bool = False) -> None:
        """Write what waits; with `everything`, also progress that could wait longer.

        Raises:
            Fenced: the attempt has lost its job.
        """
        for message in self._waiting:
            self._write(c, message)
        self._progress_written = self._progress is not None and (everything or self._progress_due)
        if self._progress is not None and self._progress_written:
            attempts.progress(
                c,
                *self._held,
                epoch=self._progress["epoch"],
                epochs=self._progress["epochs"],
                step=self._progress["step"],
                num_steps=self._progress["num_steps"],
                eta_at=self._progress["eta_at"],
            )

    def written(self) -> None:
        """The transaction was committed: what was written need not be written again."""
        self._waiting.clear()
        if self._progress_written:
            self._progress = None
            self._next_progress = time.monotonic() + PROGRESS_SECONDS

    def _write(self, c: Connection, message: Message) -> None:
        match message["type"]:
            case "started":
                attempts.hold(c, *self._held, determinism=message["determinism"])
            case "dataset":
                attempts.hold(c, *self._held, dataset_digest=message["digest"])
            case "phase":
                attempts.phase(c, *self._held, message["phase"])
            case "metrics":
                metrics.append(c, *self._held, _points(message))
            case "checkpoint":
                attempts.checkpoint(c, *self._held, epoch=message["epoch"], step=message["step"])
            case "warning":
                attempts.hold(c, *self._held)
                events.append(c, self._held[0], "job.warning", {"message": message["message"]}, self._attempt)
            case unknown:
                raise ValueError(f"the trainer sent a message of the unknown type {unknown!r}")

    def _eta(self, message: Message) -> datetime | None:
        """When the last step will be done, at the pace of this attempt so far."""
        assert self._first is not None
        since, first_step = self._first
        done = message["step"] - first_step
        if done <= 0:
            return None
        seconds = (time.monotonic() - since) / done * (message["num_steps"] - message["step"])
        return datetime.now(UTC) + timedelta(seconds=seconds)


def _points(message: Message) -> list[Point]:
    place = {"epoch": message["epoch"], "step": message["step"], "at": datetime.fromisoformat(message["at"])}
    values = [Point(key=key, value=value, **place) for key, value in message["values"].items()]
    return values + [Point(key=key, value=value, timing=True, **place) for key, value in message["timings"].items()]
