"""Where datasets lie in the data folder, and the locks of those who work on them."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnn.datasets import registered_folder
from worker.artifacts import BlobStore
from worker.store import datasets
from worker.store.database import Database

SHEET = "samples.png"
SHEET_SECONDS = 24 * 3600.0


def work_folder(data_dir: Path, name: str) -> Path:
    """Where one validation or drawing writes; nobody else does."""
    return data_dir / "datasets" / "work" / name


def sheet_path(data_dir: Path, key: str) -> Path:
    """The augmented contact sheet of this key, once it is drawn."""
    return data_dir / "datasets" / "sheets" / f"{key}.png"


def samples_path(data_dir: Path, digest: str) -> Path:
    """The contact sheet of a ready dataset without augmentation."""
    return registered_folder(data_dir, digest) / SHEET


@contextmanager
def claimed(data_dir: Path, name: str) -> Iterator[int | None]:
    """A lock's descriptor while this process alone works on `name`; None while another one does.

    The kernel releases it when all who have the descriptor are gone, however they ended.
    """
    path = work_folder(data_dir, f"{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def install(arrays: Path, data_dir: Path, digest: str) -> int:
    """Give arrays their place; others may have put equal ones there before. Returns the bytes that they take."""
    target = registered_folder(data_dir, digest)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        arrays.rename(target)
    return sum(path.stat().st_size for path in target.iterdir())


def remove_leftovers(data_dir: Path) -> None:
    """Remove what validations left that were killed, and sheets that were drawn a day ago."""
    for folder in work_folder(data_dir, "").glob("*/"):
        with claimed(data_dir, folder.name) as lock:
            if lock is not None:
                shutil.rmtree(folder)
    for sheet in sheet_path(data_dir, "").parent.glob("*.png"):
        if sheet.stat().st_mtime < time.time() - SHEET_SECONDS:
            sheet.unlink(missing_ok=True)


def delete_dataset(database: Database, data_dir: Path, dataset_id: str) -> None:
    """Delete a dataset, and its arrays when no other one has the same.

    A crash on the way leaves files that nothing names, never a row without its files.

    Raises:
        DatasetInUse: jobs that have not ended need it.
        BlobsInUse: files are being stored all the time; nothing was deleted.
        DatabaseUnavailable: the database is away.
    """
    with BlobStore(data_dir).removing():
        with database.write() as c:
            unneeded = datasets.remove(c, dataset_id)
        if unneeded is not None:
            with suppress(FileNotFoundError):
                shutil.rmtree(registered_folder(data_dir, unneeded))
