"""Deletes a job with everything that only it has: rows first, then files."""

from __future__ import annotations

from pathlib import Path

from worker.artifacts import BlobStore, remove_job_folder
from worker.store import intents
from worker.store.database import Database


def delete_job(database: Database, data_dir: Path, job_id: str) -> None:
    """Delete a job that has ended. A crash on the way leaves files that nothing names, never a row without its file.

    Raises:
        JobNotFound: there is no such job.
        InvalidTransition: the job has not ended.
        BlobsInUse: files are being stored all the time; nothing was deleted.
    """
    blobs = BlobStore(data_dir)
    with blobs.removing():
        with database.write() as c:
            unneeded = intents.remove(c, job_id)
        blobs.remove(unneeded)
    remove_job_folder(data_dir, job_id)
