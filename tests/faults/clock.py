"""A time of day that jumps, for processes that are started with it; their monotonic clocks stay as they are.

libfaketime, which would do the same, lets `time.sleep` fail: it spoils the absolute times of `clock_nanosleep`.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class JumpingClock:
    """Runs ahead of the real time of day by a number of seconds that may change at any moment."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ahead"
        self._library = folder / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O", "-o", self._library, SOURCE, "-ldl"], check=True)
        self._file.write_bytes(struct.pack("q", 0))

    @property
    def environment(self) -> Mapping[str, str]:
        """Of the processes that go by this clock."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_AHEAD": str(self._file)}

    def set(self, seconds: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    @staticmethod
    def can_be_built() -> bool:
        return shutil.which("cc") is not None
