"""Ends the process groups of `epochd up` when `epochd up` itself was killed: `python -m server.guardian`.

Its stdin is a pipe that only `epochd up` can write to: `+<group>` and `-<group>` lines tell which process groups are
its own; the end of the pipe, however it came about, means that nobody looks after the groups that are left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

GRACE_SECONDS = 15.0


class Guardian:
    """Our end of the pipe to `server.guardian`, which ends the process groups it was told of when we are gone."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server.guardian"], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # without it the group works, only not through a kill of this process
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def signal_groups(groups: Iterable[int], number: int) -> set[int]:
    """Send the signal (0 only asks whether a group is there); the groups that there were."""
    alive = set()
    for group in groups:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            continue
        alive.add(group)
    return alive


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    deadline = time.monotonic() + GRACE_SECONDS
    alive = signal_groups(groups, signal.SIGTERM)
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive = signal_groups(alive, 0)
    signal_groups(alive, signal.SIGKILL)


if __name__ == "__main__":
    main()
