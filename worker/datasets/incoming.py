"""The files of uploads in `<data_dir>/uploads`: written part by part, each part whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from worker.store import uploads
from worker.store.database import Database

CHUNK_BYTES = 2**20
RESERVE_BYTES = 2**30
"""What uploads leave free on the disk: jobs write their checkpoints there."""


def upload_path(data_dir: Path, upload_id: str) -> Path:
    """The file of an upload; behind the bytes that count there may be those of a part that was refused."""
    return data_dir / "uploads" / upload_id


def room(data_dir: Path) -> int:
    """Bytes of the disk that uploads may still take; negative when they have taken too much."""
    data_dir.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(data_dir).free - RESERVE_BYTES


@contextmanager
def receiving(data_dir: Path, upload_id: str) -> Iterator[BinaryIO | None]:
    """The upload's file, open for this part alone; None while another part is being received."""
    path = upload_path(data_dir, upload_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file


def digest_of(file: BinaryIO) -> str:
    """SHA-256 of a whole file, in hex."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def remove_file(data_dir: Path, upload_id: str) -> None:
    with suppress(FileNotFoundError):
        upload_path(data_dir, upload_id).unlink()


def remove_expired(database: Database, data_dir: Path) -> None:
    """Forget uploads that nobody has gone on with. A crash on the way leaves a file without a row.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    with database.write() as c:
        expired = uploads.remove_expired(c)
    for upload_id in expired:
        remove_file(data_dir, upload_id)
