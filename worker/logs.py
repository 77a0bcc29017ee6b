"""The log of a job: what its trainers printed, all attempts in one file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

TAIL_LINES = 50
TAIL_BYTES = 64 * 1024


def log_path(data_dir: Path, job_id: str) -> Path:
    """Where the job's log is; it exists from the first attempt on."""
    return data_dir / "jobs" / job_id / "log.txt"


def open_log(path: Path, attempt: int) -> int:
    """A file descriptor for appending, behind a line that says which attempt follows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"--- attempt {attempt}, {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
    except OSError:  # the disk is full
        os.close(descriptor)
        raise
    return descriptor


def tail(path: Path, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log, at most 64 KiB of them."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        content = file.read()
    if size > TAIL_BYTES:
        content = content.partition(b"\n")[2]
    # PostgreSQL stores no NUL characters.
    text = content.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return tuple(text.splitlines()[-lines:])
