"""How trainers are started: forked by a warm launcher, or as fresh processes."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.settings import Settings, trainer_environment
from worker.store.attempts import UNSEEN, Exit

logger = logging.getLogger(__name__)

TRAINER = (sys.executable, "-m", "worker.trainer")
LAUNCHER = (sys.executable, "-m", "worker.launcher")
CONTROL_DESCRIPTOR = 3
EVENT_DESCRIPTOR = 3
FORK_SECONDS = 6.0
"""How long a launcher that is ready may take for a fork; less than a lease, and a hundred times what it needs."""
END_SECONDS = 1.0
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM)


class StartFailed(OSError):
    """No trainer could be started."""


class LauncherLost(StartFailed):
    """The launcher is dead or does not answer."""


@dataclass(frozen=True)
class Descriptors:
    """What a new trainer gets: 0 its requests, 1 and 2 the log, 3 its events."""

    stdin: int
    log: int
    events: int


class Running(Protocol):
    """A trainer that was started, the leader of a process group of its own."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> Exit | None:
        """How it ended; None while it runs."""

    def release(self) -> None:
        """Nothing more will be asked of it, and no signal sent."""


class Starter(Protocol):
    """Starts trainers, from any thread."""

    def ready(self, seconds: float) -> bool:
        """Whether a trainer can be started at once; waits up to `seconds` for it. The first call begins to warm up."""

    def start(self, environment: Mapping[str, str], descriptors: Descriptors) -> Running:
        """Start a trainer; the descriptors stay the caller's.

        Raises:
            StartFailed: there is none.
        """

    def close(self) -> None:
        """Nothing more will be started."""


class FreshStarter:
    """Runs a command for each trainer, which has to import everything."""

    def __init__(self, command: Sequence[str] = TRAINER) -> None:
        self._command = command

    def ready(self, seconds: float) -> bool:
        return True

    def start(self, environment: Mapping[str, str], descriptors: Descriptors) -> Running:
        try:
            pid = os.posix_spawn(
                self._command[0],
                list(self._command),
                dict(environment),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, descriptors.stdin, 0),
                    (os.POSIX_SPAWN_DUP2, descriptors.log, 1),
                    (os.POSIX_SPAWN_DUP2, descriptors.log, 2),
                    (os.POSIX_SPAWN_DUP2, descriptors.events, EVENT_DESCRIPTOR),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=DEFAULT_SIGNALS,
            )
        except OSError as error:
            raise StartFailed(f"no process can be started: {error}") from error
        return _Fresh(pid)

    def close(self) -> None:
        pass


def make_starter(settings: Settings, threads: int) -> Starter:
    """What the settings say; `threads` is what most trainers will have."""
    if (settings.launcher or ("warm" if sys.platform == "linux" else "fresh")) == "fresh":
        return FreshStarter()
    return WarmStarter(trainer_environment(threads=threads, gpu=None))


@dataclass(frozen=True)
class _Fresh:
    pid: int

    def poll(self) -> Exit | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return _exit(os.waitstatus_to_exitcode(status)) if pid else None

    def release(self) -> None:
        pass


class WarmStarter:
    """Has a launcher fork each trainer, and starts a new launcher when that has died.

    Args:
        environment: of the launcher.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._launcher: _LauncherProcess | None = None

    def ready(self, seconds: float) -> bool:
        with self._lock:
            if self._launcher is not None and self._launcher.ended:
                logger.error("the launcher has died; starting another one")
                self._forget()
            if self._launcher is None:
                self._launcher = _LauncherProcess(self._environment)
            return self._launcher.ready(seconds)

    def start(self, environment: Mapping[str, str], descriptors: Descriptors) -> Running:
        launcher = self._launcher
        if launcher is None:
            raise StartFailed("there is no launcher")
        ours, tie = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with tie, self._lock:
                launcher.order(environment, descriptors, tie)
            pid = _told_pid(ours)
        except StartFailed as error:
            ours.close()
            with self._lock:
                if isinstance(error, LauncherLost) and self._launcher is launcher:
                    self._forget()
            raise
        ours.setblocking(False)
        return _Warm(pid, ours)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._launcher is not None:
            self._launcher.end()
            self._launcher = None


class _LauncherProcess:
    """One launcher, which lives as long as our end of its socket."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(FORK_SECONDS)
        self._is_ready = False
        self._has_hung_up = False
        self._reaped = False
        with theirs:
            self._pid = os.posix_spawn(
                LAUNCHER[0],
                LAUNCHER,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL_DESCRIPTOR)],
                setsid=True,
                setsigmask=[],
                setsigdef=DEFAULT_SIGNALS,
            )

    @property
    def ended(self) -> bool:
        """Whether it is gone, or about to be: its socket closes a little earlier."""
        return self._has_hung_up or self._reap()

    def _reap(self) -> bool:
        self._reaped = self._reaped or os.waitpid(self._pid, os.WNOHANG)[0] != 0
        return self._reaped

    def ready(self, seconds: float) -> bool:
        """Whether it has imported everything, after at most this time."""
        if not self._is_ready and select.select([self._socket], [], [], seconds)[0]:
            self._is_ready = self._socket.recv(64) != b""
            self._has_hung_up = not self._is_ready
        return self._is_ready

    def order(self, environment: Mapping[str, str], descriptors: Descriptors, tie: socket.socket) -> None:
        passed = [descriptors.stdin, descriptors.log, descriptors.events, tie.fileno()]
        try:
            socket.send_fds(self._socket, [json.dumps(dict(environment)).encode()], passed)
        except OSError as error:
            raise LauncherLost(f"the launcher takes no order: {error}") from error

    def end(self) -> None:
        """It kills its trainers and ends when our end is closed; one that does not is killed."""
        self._socket.close()
        deadline = time.monotonic() + END_SECONDS
        while not self._reap() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._reaped:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


@dataclass(frozen=True)
class _Warm:
    pid: int
    tie: socket.socket

    def poll(self) -> Exit | None:
        try:
            message = self.tie.recv(64)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return UNSEEN
        return _exit(int(message.removeprefix(b"exit "))) if message else UNSEEN  # the launcher was killed

    def release(self) -> None:
        self.tie.close()


def _told_pid(tie: socket.socket) -> int:
    """What the new trainer says first."""
    tie.settimeout(FORK_SECONDS)
    try:
        message = tie.recv(64)
    except TimeoutError:
        raise LauncherLost(f"the launcher has forked no trainer for {FORK_SECONDS:g} s") from None
    except ConnectionResetError:
        message = b""
    if not message:
        raise LauncherLost("the launcher has died while it forked the trainer")
    if not message.startswith(b"pid "):
        raise StartFailed("the trainer has died at its start")
    return int(message.removeprefix(b"pid "))


def _exit(code: int) -> Exit:
    return Exit(exit_code=code) if code >= 0 else Exit(signal=-code)
