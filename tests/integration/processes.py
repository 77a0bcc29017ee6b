"""Looking at the processes of this machine, for tests that start and kill them."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def wait_until(condition: Callable[[], bool], seconds: float = 15.0, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(pause)


def freeze(pid: int, database_url: str) -> None:
    """SIGSTOP, at a moment at which the process holds no lock of SQLite: with it, all others would stand, too."""
    path = database_url.removeprefix("sqlite:///")
    os.kill(pid, signal.SIGSTOP)
    while path != database_url and not _is_writable(path):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
        os.kill(pid, signal.SIGSTOP)


def _is_writable(path: str) -> bool:
    with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
    return True


def children() -> dict[int, list[int]]:
    """The living processes by their parents; zombies do not count."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found.setdefault(int(parent), []).append(int(entry.name))
    return found


def descendants(pid: int) -> set[int]:
    by_parent = children()
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = by_parent.get(waiting.pop(), [])
        found.update(new)
        waiting.extend(new)
    return found


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def trainers(pid: int) -> set[int]:
    """The trainers that the launcher of a worker has forked."""
    return named("epochd-trainer", pid)


def named(name: str, pid: int) -> set[int]:
    """The processes of this name among the descendants of a process."""
    return {child for child in descendants(pid) if _name(child) == name}


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def hears_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM."""
    handled = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(handled.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def alive(pids: set[int]) -> set[int]:
    return pids & {pid for group in children().values() for pid in group}
