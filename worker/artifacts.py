"""Files on disk: the folders of a job's attempts, and blobs named by the SHA-256 of their bytes."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1024 * 1024


class BlobStore:
    """Immutable files in `<data_dir>/blobs`: each appears whole or not at all, and survives a power cut."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "blobs"

    def path(self, sha256: str) -> Path:
        """Where the blob with this digest is, if it is stored."""
        return self._folder / sha256[:2] / sha256

    def put(self, source: Path) -> tuple[str, int]:
        """Store a copy of a file; returns its SHA-256 in hex and its size in bytes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=self._folder)
        temporary = Path(name)
        digest = hashlib.sha256()
        size = 0
        try:
            with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
                while chunk := reader.read(CHUNK):
                    digest.update(chunk)
                    writer.write(chunk)
                    size += len(chunk)
                writer.flush()
                os.fsync(writer.fileno())
            temporary.chmod(0o644)
            target = self.path(digest.hexdigest())
            target.parent.mkdir(exist_ok=True)
            temporary.rename(target)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise
        _fsync_folder(target.parent)
        return digest.hexdigest(), size


@dataclass(frozen=True)
class AttemptFolder:
    """Where one attempt at a job writes; nobody else writes there."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Holds one folder `step-<n>` for each complete checkpoint."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """Holds finished files for users, before they become blobs."""
        return self.path / "artifacts"

    def create(self) -> None:
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.artifacts.mkdir(exist_ok=True)


def attempt_folder(data_dir: Path, job_id: str, attempt: int) -> AttemptFolder:
    """The folder of an attempt, which need not exist."""
    return AttemptFolder(data_dir / "jobs" / job_id / f"attempt-{attempt}")


def newest_checkpoint(data_dir: Path, job_id: str) -> tuple[int, Path] | None:
    """Step and path of the newest complete checkpoint among all attempts.

    The disk is asked and not the store, because a worker may die between the two.
    """
    found = [
        (int(match[1]), path)
        for path in (data_dir / "jobs" / job_id).glob("attempt-*/checkpoints/step-*")
        if (match := re.fullmatch(r"step-(\d+)", path.name))
    ]
    return max(found, default=None)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
