"""A full disk: how it shows, and when there is room again."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from worker.artifacts import AttemptFolder, newest_checkpoint

ROOM_BYTES = 64 * 2**20
"""What must be free beside checkpoints: for the log, the database, the artifacts of a small network."""
CHECKPOINTS = 8
"""How many like the newest must fit: two generations and the one that is being written, each up to twice as large where
the newest did not need to hold the best weights beside its own, and the delivered weights twice."""
FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: Exception) -> bool:
    """Whether an error means that there is no room. Safetensors and NumPy put the number, or less, into the text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    text = str(error)
    return any(f"(os error {number})" in text for number in FULL) or text.endswith(" written")


def remove_unfinished(folder: AttemptFolder) -> None:
    """Make room: what the attempt did not finish, or what its job's next attempt writes anew."""
    for leftover in (folder.artifacts, *folder.checkpoints.glob(".step-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def has_room(data_dir: Path, job_id: str) -> bool:
    """Whether a job that met a full disk can go on: room for its checkpoints, judged by the newest, and some more."""
    newest = newest_checkpoint(data_dir, job_id)
    size = sum(file.stat().st_size for file in newest[1].iterdir()) if newest else 0
    return shutil.disk_usage(data_dir).free >= ROOM_BYTES + CHECKPOINTS * size
