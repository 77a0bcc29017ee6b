"""What the end of a trainer means for its job."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from worker.jobs import Blame, ErrorCode, JobError
from worker.store.attempts import Exit


class Stop(StrEnum):
    """Why the supervisor asked a trainer to stop."""

    CANCEL = "cancel"
    """The user wants no more of it."""
    PAUSE = "pause"
    """The user wants it to go on later."""
    DRAIN = "drain"
    """The worker stops, the job goes on elsewhere."""


@dataclass(frozen=True)
class Succeeded:
    """The trainer said `result` and ended well; holds that message."""

    result: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The trainer said why it cannot go on: trying again would not help."""

    error: JobError


@dataclass(frozen=True)
class Crashed:
    """The trainer ended without saying why: it may be tried again."""

    error: JobError


@dataclass(frozen=True)
class Cancelled:
    """It ended because the user asked for it."""


@dataclass(frozen=True)
class Drained:
    """It ended because the worker stops."""


@dataclass(frozen=True)
class Paused:
    """It ended because the user wants it to go on later."""


Ending = Succeeded | Failed | Crashed | Cancelled | Drained | Paused


def classify(exit: Exit, last: dict[str, Any], stop: Stop | None, log_tail: tuple[str, ...]) -> Ending:
    """The meaning of an exit.

    Args:
        last: the trainer's last message of type result, error or stopped; empty without one.
        stop: what the supervisor had asked for.
    """
    if last.get("type") == "result" and exit.exit_code == 0:
        return Succeeded(last)
    if stop == Stop.CANCEL:
        return Cancelled()
    if last.get("type") == "error":
        return Failed(_reported(last, log_tail))
    if stop == Stop.PAUSE:
        return Paused()
    if stop == Stop.DRAIN:
        return Drained()
    return Crashed(_crash(exit, log_tail))


def _reported(message: dict[str, Any], log_tail: tuple[str, ...]) -> JobError:
    return JobError(
        code=message["code"],
        message=message["message"],
        blame=message["blame"],
        retryable=message["blame"] in (Blame.CAPACITY, Blame.PLATFORM),
        hint=message["hint"],
        log_tail=log_tail,
    )


def _crash(exit: Exit, log_tail: tuple[str, ...]) -> JobError:
    if exit.signal is None:
        return JobError(
            code=ErrorCode.TRAINER_CRASHED,
            message=f"the trainer ended with exit code {exit.exit_code} without a result or an error",
            blame=Blame.PLATFORM,
            retryable=True,
            hint="the last lines of its log say more",
            log_tail=log_tail,
        )
    name = signal.Signals(exit.signal).name
    return JobError(
        code=ErrorCode.KILLED_BY_SIGNAL,
        message=f"the trainer was killed by signal {exit.signal} ({name})",
        blame=Blame.PLATFORM,
        retryable=True,
        hint="the kernel kills processes when memory runs out" if exit.signal == signal.SIGKILL else None,
        log_tail=log_tail,
    )
