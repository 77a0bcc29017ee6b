"""`epochd up`: broker, worker and API on this machine as one group that starts, restarts and ends together."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Final

import httpx
import typer

from server import auth
from server.auth import InsecureBind
from server.console import ending_signals
from server.guardian import Guardian, signal_groups
from worker.settings import Settings, child_environment
from worker.store.database import DatabaseUnavailable
from worker.valkey import Valkey, ValkeyError

CHECK_SECONDS: Final = 0.2
STOP_SECONDS: Final = 10.0
MAX_BACKOFF_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""After this time alive, the next death of a part counts as its first."""
LOOPBACK_NETWORKS: Final = "127.0.0.0/8,::1/128"


class UpError(Exception):
    """The group cannot start, or a part of it ended before it was ready; the message says why."""


class Part:
    """One process of the group, in a process group of its own. Its output appears with its name in front."""

    def __init__(self, name: str, launch: Callable[[], subprocess.Popen[bytes]], guardian: Guardian) -> None:
        self.name = name
        self._launch = launch
        self._guardian = guardian
        self._process: subprocess.Popen[bytes] | None = None
        self._output: threading.Thread | None = None
        self._started_at = 0.0
        self._restart_at = 0.0
        self._deaths = 0

    def start(self) -> None:
        process = self._launch()
        self._guardian.tell(f"+{process.pid}")
        self._output = threading.Thread(target=self._copy_output, args=(process,), daemon=True)
        self._output.start()
        self._process, self._started_at = process, time.monotonic()

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll() if self._process is not None else None

    def restart_if_dead(self) -> None:
        """Start it again, later and later while it keeps dying: after 0.5 s, 1 s, 2 s … up to 30 s."""
        now = time.monotonic()
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            if now - self._started_at > STEADY_SECONDS:
                self._deaths = 0
            self._schedule(f"exited with {code}")
        elif now >= self._restart_at:
            try:
                self.start()
            except ValkeyError as error:
                self._schedule(str(error))

    def _schedule(self, reason: str) -> None:
        self._forget()
        backoff = min(0.5 * 2**self._deaths, MAX_BACKOFF_SECONDS)
        self._deaths += 1
        self._restart_at = time.monotonic() + backoff
        say(f"{self.name} {reason}; starting it again in {backoff:g} s")

    def stop(self, seconds: float, hurry: Callable[[], bool]) -> None:
        """SIGTERM, up to `seconds` of patience (none once `hurry()`), SIGKILL of what is left of the group."""
        if self._process is None:
            return
        self._process.terminate()
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        self._forget()

    def _forget(self) -> None:
        assert self._process is not None
        signal_groups([self._process.pid], signal.SIGKILL)
        self._process.wait()
        self._guardian.tell(f"-{self._process.pid}")
        if self._output is not None:
            self._output.join(timeout=1)  # a grandchild may still hold the pipe
        self._process = None

    def _copy_output(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                typer.echo(f"{self.name:<6} | {line.decode(errors='replace').rstrip()}")


def say(message: str) -> None:
    typer.echo(f"epochd | {message}")


def free_port(host: str, port: int) -> int:
    """`port`, or one that is free when it is 0. Raises UpError when somebody listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            number: int = probe.getsockname()[1]
            return number
    except OSError as error:
        raise UpError(
            f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}; choose another EPOCHD_PORT"
        ) from error


@contextmanager
def termination_pipe() -> Iterator[int]:
    """A file descriptor that gets a byte for each of the signals that end us, which do nothing else meanwhile."""
    receive, send = os.pipe()
    os.set_blocking(send, False)
    previous = {number: signal.signal(number, lambda *_: os.write(send, b".")) for number in ending_signals()}
    try:
        yield receive
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(receive)
        os.close(send)


def arrived(terminations: int, seconds: float) -> bool:
    """Whether a signal came within `seconds`; each one is reported once."""
    ready, _, _ = select.select([terminations], [], [], seconds)
    return bool(ready and os.read(terminations, 1))


def url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def module(name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """`python -m name`, in a process group of its own: a Ctrl-C reaches `epochd up` alone, which ends the parts."""
    return subprocess.Popen(
        [sys.executable, "-m", name],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def run(parts: list[Part], url: str, terminations: int) -> None:
    """Start the parts, say when the API is ready, and keep them running until a signal comes."""
    for part in parts:
        part.start()
    with httpx.Client(base_url=url, trust_env=False, timeout=2) as client:
        while not is_ready(client):
            exits = [f"{part.name} exited with {code}" for part in parts if (code := part.exit_code()) is not None]
            if arrived(terminations, CHECK_SECONDS):  # if it was sent to all processes, the parts may have been faster
                return
            if exits:
                raise UpError(f"{exits[0]} before the server was ready")
    say(f"ready at {url} (Ctrl-C stops everything)")
    while not arrived(terminations, CHECK_SECONDS):
        for part in parts:
            part.restart_if_dead()


def stop(parts: list[Part], settings: Settings, terminations: int) -> None:
    """API, worker, broker: nothing new comes in, running jobs write their checkpoint, then the broker may go."""
    say("stopping")
    hurried = False

    def hurry() -> bool:
        nonlocal hurried
        hurried = hurried or arrived(terminations, 0)
        return hurried

    for part in reversed(parts):
        part.stop(STOP_SECONDS + settings.drain_grace_seconds * (part.name == "worker"), hurry)
    say("stopped")


@contextmanager
def embedded_broker(settings: Settings) -> Iterator[Valkey | None]:
    """The broker that belongs to the group, or None when the settings name a server."""
    if settings.redis_url is not None:
        yield None
        return
    valkey = Valkey(settings.data_dir)
    try:
        yield valkey
    finally:
        valkey.stop()


def supervise(settings: Settings, terminations: int) -> None:
    with embedded_broker(settings) as valkey, closing(Guardian()) as guardian:
        parts = []
        if valkey is not None:
            settings = settings.model_copy(update={"redis_url": valkey.url})
            parts.append(Part("broker", partial(valkey.start, subprocess.PIPE), guardian))
        environment = child_environment(settings)
        parts.append(Part("worker", partial(module, "worker", environment), guardian))
        parts.append(Part("api", partial(module, "server", environment), guardian))
        auth.prepare(settings)
        try:
            run(parts, f"http://{url_host(settings.host)}:{settings.port}", terminations)
        finally:
            stop(parts, settings, terminations)


def up(settings: Settings, dev: bool) -> int:
    """Run the group until a signal ends it; the exit code, 1 when it could not start.

    With `EPOCHD_REDIS_URL` set that server is used, else an embedded Valkey is part of the group. When this process is
    killed, the guardian ends the others.
    """
    try:
        if dev:
            allowed = f"{settings.webhook_allow},{LOOPBACK_NETWORKS}"
            settings = settings.model_copy(update={"auth": "off", "webhook_allow": allowed})
        auth.check_address(settings)
        port = free_port(settings.host, settings.port)
        with termination_pipe() as terminations:
            supervise(
                settings.model_copy(update={"port": port, "data_dir": settings.data_dir.absolute()}), terminations
            )
    except (UpError, InsecureBind, ValkeyError, DatabaseUnavailable) as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    return 0
