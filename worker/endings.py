"""What the end of a trainer means for its job."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from worker.jobs import Blame, ErrorCode, JobError
from worker.memory import Shortage
from worker.store.attempts import Exit

DISK_FULL = "disk_full"
"""Code of a trainer's error that is none of the job's."""


class Stop(StrEnum):
    """Why the supervisor asked a trainer to stop."""

    CANCEL = "cancel"
    """The user wants no more of it."""
    PAUSE = "pause"
    """The user wants it to go on later."""
    LIMIT = "limit"
    """The job has run for as long as its limits allow."""
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


@dataclass(frozen=True)
class DiskFull:
    """It ended because the disk is full: nobody's fault, and it can go on when there is room."""


Ending = Succeeded | Failed | Crashed | Cancelled | Drained | Paused | DiskFull


def not_started(reason: str) -> Crashed:
    """The end of an attempt whose trainer has not even begun."""
    return Crashed(
        JobError(
            code=ErrorCode.TRAINER_CRASHED,
            message=f"the trainer could not be started: {reason}",
            blame=Blame.PLATFORM,
            retryable=True,
            hint="the log of the worker says more",
        )
    )


def classify(
    exit: Exit,
    last: dict[str, Any],
    stop: Stop | None,
    log_tail: tuple[str, ...],
    shortage: Shortage | None = None,
) -> Ending:
    """The meaning of an exit.

    Args:
        last: the trainer's last message of type result, error or stopped; empty without one.
        stop: what the supervisor had asked for.
        shortage: of memory, when the kernel has killed for lack of it meanwhile.
    """
    if last.get("type") == "result" and exit.exit_code == 0:
        return Succeeded(last)
    if stop == Stop.CANCEL:
        return Cancelled()
    if last.get("code") == DISK_FULL:
        return DiskFull()
    if last.get("type") == "error":
        return Failed(_reported(last, log_tail))
    if stop == Stop.LIMIT:
        return Failed(_out_of_time(log_tail))
    if stop == Stop.PAUSE:
        return Paused()
    if stop == Stop.DRAIN:
        return Drained()
    if shortage is not None and exit.signal == signal.SIGKILL:
        return Crashed(_killed_for_memory(shortage, log_tail))
    return Crashed(_crash(exit, log_tail))


def _out_of_time(log_tail: tuple[str, ...]) -> JobError:
    return JobError(
        code=ErrorCode.MAX_RUNTIME_EXCEEDED,
        message="the job has run for as long as its limits.max_runtime_seconds allows",
        blame=Blame.USER,
        retryable=True,
        hint="a retry continues from its newest checkpoint, and may run as long again",
        log_tail=log_tail,
    )


def _reported(message: dict[str, Any], log_tail: tuple[str, ...]) -> JobError:
    return JobError(
        code=message["code"],
        message=message["message"],
        blame=message["blame"],
        retryable=message["blame"] in (Blame.CAPACITY, Blame.PLATFORM),
        hint=message["hint"],
        log_tail=log_tail,
    )


def _killed_for_memory(shortage: Shortage, log_tail: tuple[str, ...]) -> JobError:
    if shortage.proven:
        code, blame = ErrorCode.OUT_OF_MEMORY, Blame.CAPACITY
        message = f"the kernel killed the trainer for lack of memory; {shortage.predicted}"
    else:
        code, blame = ErrorCode.KILLED_BY_SIGNAL, Blame.PLATFORM
        message = (
            "the trainer was killed by signal 9 (SIGKILL), perhaps for lack of memory: the kernel killed some process "
            f"of this machine for that meanwhile, and does not tell which; {shortage.predicted}"
        )
    return JobError(
        code=code,
        message=message,
        blame=blame,
        retryable=True,
        pointer="/training/batch_size",
        hint=shortage.hint,
        log_tail=log_tail,
    )


def _crash(exit: Exit, log_tail: tuple[str, ...]) -> JobError:
    code, hint = ErrorCode.TRAINER_CRASHED, "the last lines of its log say more"
    if exit.signal is not None:
        code = ErrorCode.KILLED_BY_SIGNAL
        message = f"the trainer was killed by signal {exit.signal} ({signal.Signals(exit.signal).name})"
    elif exit.exit_code is not None:
        message = f"the trainer ended with exit code {exit.exit_code} without a result or an error"
    else:
        message = "the trainer was lost together with the launcher that had started it"
    return JobError(code=code, message=message, blame=Blame.PLATFORM, retryable=True, hint=hint, log_tail=log_tail)
