"""Files on disk: the folders of a job's attempts, and blobs named by the SHA-256 of their bytes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHUNK = 1024 * 1024
UNFINISHED = ".new-"
PATIENCE_SECONDS = 2.0
PAUSE_SECONDS = 0.02


class BlobsInUse(Exception):
    """Somebody stores files all the time, or is frozen while it does; nothing was removed."""


class BlobStore:
    """Immutable files in `<data_dir>/blobs`: each appears whole or not at all, and survives a power cut."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "blobs"

    def path(self, sha256: str) -> Path:
        """Where the blob with this digest is, if it is stored."""
        return self._folder / sha256[:2] / sha256

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Held from a `put` until the row that names its blob is committed: meanwhile nobody removes blobs."""
        with self._lock_file() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def removing(self) -> Iterator[None]:
        """Held from looking for rows that name a blob until its `remove`: meanwhile nobody adds any.

        Removes what workers that were killed in a `put` have left.

        Raises:
            BlobsInUse: somebody adds blobs, and has not come to an end within `PATIENCE_SECONDS`.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._lock_file() as lock:
            while not _lock_alone(lock):
                if time.monotonic() > deadline:
                    raise BlobsInUse(f"files are being stored, for more than {PATIENCE_SECONDS:g} s")
                time.sleep(PAUSE_SECONDS)
            for leftover in self._folder.glob(f"{UNFINISHED}*"):
                leftover.unlink()
            yield

    def remove(self, digests: Sequence[str]) -> None:
        """Remove blobs, where they are there."""
        for sha256 in digests:
            self.path(sha256).unlink(missing_ok=True)

    def _lock_file(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return (self._folder / ".lock").open("a+b")  # on NFS a lock that is shared needs a file that can be read

    def put(self, source: Path) -> tuple[str, int]:
        """Store a copy of a file; returns its SHA-256 in hex and its size in bytes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self._folder)
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


def remove_job_folder(data_dir: Path, job_id: str) -> None:
    """Remove what the attempts at a job wrote, where there were any."""
    with suppress(FileNotFoundError):
        shutil.rmtree(data_dir / "jobs" / job_id)


def remove_attempts(data_dir: Path, job_id: str) -> None:
    """Remove checkpoints and unstored files of a job that needs them no more; its log stays."""
    for folder in (data_dir / "jobs" / job_id).glob("attempt-*"):
        shutil.rmtree(folder)


def newest_checkpoint(data_dir: Path, job_id: str, first_attempt: int = 1) -> tuple[int, Path] | None:
    """Step and path of the newest complete checkpoint among the attempts from `first_attempt` on.

    The disk is asked and not the store, because a worker may die between the two.
    """
    found = ((step, path) for number, step, path in _checkpoints(data_dir, job_id) if number >= first_attempt)
    return max(found, default=None)


def carry_over(data_dir: Path, job_id: str, attempt: int, first_attempt: int = 1) -> None:
    """Move the complete checkpoints of earlier attempts to the folder of this one, which exists.

    So the next older one is at hand when the newest is damaged, whoever wrote them. Each is there at any moment, as
    links to the same bytes; a worker that lost the job may still write where it did. Those of attempts before
    `first_attempt` are removed only.
    """
    target = attempt_folder(data_dir, job_id, attempt).checkpoints
    complete = False
    while not complete:
        earlier = sorted((found for found in _checkpoints(data_dir, job_id) if found[0] < attempt), reverse=True)
        complete = all([_link(path, target) for number, _, path in earlier if number >= first_attempt])
    if earlier:  # a first attempt need not wait for the disk
        _fsync_folder(target)
    for number in {number for number, _, _ in earlier}:
        shutil.rmtree(attempt_folder(data_dir, job_id, number).checkpoints, ignore_errors=True)


def _link(checkpoint: Path, target: Path) -> bool:
    """Whether `target` has the checkpoint now; not when its writer has just removed it, for a newer one."""
    if (target / checkpoint.name).exists():
        return True
    temporary = target / f".{checkpoint.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for file in checkpoint.iterdir():
            os.link(file, temporary / file.name)
    except FileNotFoundError:
        if checkpoint.exists():
            raise
    if not checkpoint.exists():  # a writer takes its name away before its files
        return False
    _fsync_folder(temporary)
    temporary.rename(target / checkpoint.name)
    return True


def _checkpoints(data_dir: Path, job_id: str) -> list[tuple[int, int, Path]]:
    """Attempt, step and path of every complete checkpoint."""
    return [
        (int(match[1]), int(match[2]), path)
        for path in (data_dir / "jobs" / job_id).glob("attempt-*/checkpoints/step-*")
        if (match := re.search(r"/attempt-(\d+)/checkpoints/step-(\d+)$", path.as_posix()))
    ]


def _lock_alone(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
