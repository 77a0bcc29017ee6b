"""The processes that train, found by what they have open."""

from __future__ import annotations

import os
import re
from pathlib import Path


def trainers(data_dir: Path) -> dict[int, str]:
    """The job of every living process whose output is a job's log: trainers, and what they have started."""
    jobs = re.compile(rf"{re.escape(str(data_dir.resolve()))}/jobs/(job_\w+)/log\.txt")
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            match = jobs.fullmatch(os.readlink(process / "fd" / "1"))
        except OSError:  # it has just ended
            continue
        if match:
            found[int(process.name)] = match[1]
    return found
