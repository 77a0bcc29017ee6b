"""The part of a worker that looks after datasets: validates what was registered, draws sheets, forgets old uploads.

Whoever holds the lock of a dataset validates it; its process holds it, too. So a validation whose worker has died is
taken up by the next one that looks, and none runs twice at the same time. Nothing else has to be remembered.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.artifacts import BlobStore
from worker.datasets.findings import Report
from worker.datasets.incoming import remove_expired, upload_path
from worker.datasets.keeping import claimed, install, remove_leftovers, sheet_path, work_folder
from worker.settings import Settings, trainer_environment
from worker.store import datasets, uploads
from worker.store.database import Database, DatabaseUnavailable
from worker.store.datasets import MAX_ATTEMPTS, Dataset, Sheet

logger = logging.getLogger(__name__)

VALIDATE = (sys.executable, "-m", "worker.datasets.validation")
DRAW = (sys.executable, "-m", "cnn.contact_sheet")
VALIDATION_SECONDS = 3600.0
DRAWING_SECONDS = 60.0
FORGET_SECONDS = 60.0
LOOP_SECONDS = 0.1


class Upkeep:
    """Two threads: one validates, the other draws and forgets, so that a sheet waits for no validation."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._data_dir = settings.data_dir.absolute()
        self._stopping = threading.Event()
        self._forget_at = 0.0
        self._threads = [
            threading.Thread(target=self._repeat, args=(action,), name=name, daemon=True)
            for name, action in (("validate", self.validate_all), ("draw", self.draw_all))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End what runs; a validation that is broken off is begun anew by another worker."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def validate_all(self) -> None:
        """Validate what waits and nobody else works on.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self._database.read() as c:
            waiting = datasets.validating(c)
        for dataset_id in waiting:
            with claimed(self._data_dir, dataset_id) as lock:
                if lock is not None and not self._stopping.is_set():
                    self._validate(dataset_id, lock)

    def draw_all(self) -> None:
        """Draw the sheets that are wanted, and forget old uploads from time to time.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self._database.read() as c:
            waiting = datasets.waiting_sheets(c)
        for sheet in waiting:
            with claimed(self._data_dir, sheet.key) as lock:
                if lock is not None and not self._stopping.is_set():
                    self._draw(sheet, lock)
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_SECONDS
            remove_expired(self._database, self._data_dir)
            remove_leftovers(self._data_dir)

    def _validate(self, dataset_id: str, lock: int) -> None:
        with self._database.write() as c:
            dataset = datasets.begin(c, dataset_id)
            upload = None if dataset is None else uploads.get(c, dataset.upload_id)
        if dataset is None:
            return
        folder = work_folder(self._data_dir, dataset_id)
        self._empty(folder)
        report = Report()
        if upload is None:
            report.error("no_upload", "the upload is not there any more: send it again")
        elif dataset.attempts > MAX_ATTEMPTS:
            message = f"{MAX_ATTEMPTS} workers have begun to read it, and none of them has finished"
            report.error("validation_failed", message, [upload.filename or "upload"])
        if report.refused or upload is None:
            self._refuse(dataset, report.to_json())
            return
        logger.info("dataset %s is validated, attempt %d", dataset_id, dataset.attempts)
        request = {
            "upload": str(upload_path(self._data_dir, upload.id)),
            "name": upload.filename or "upload",
            "format": dataset.format,
            "folder": str(folder),
            "max_bytes": self._settings.max_dataset_bytes,
        }
        ended = self._run(VALIDATE, folder / "log", lock, VALIDATION_SECONDS, json.dumps(request).encode() + b"\n")
        self._record(dataset, folder, ended)
        shutil.rmtree(folder)

    def _record(self, dataset: Dataset, folder: Path, ended: int | None) -> None:
        if ended is None:
            with self._database.write() as c:
                datasets.give_back(c, dataset.id)
            return
        if ended != 0:
            logger.warning("validation of dataset %s: %s", dataset.id, _tail(folder / "log"))
            report = Report()
            report.error("validation_failed", _reason(ended))
            self._refuse(dataset, report.to_json())
            return
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        content = result["content"]
        if content is None:
            self._refuse(dataset, result["report"])
            return
        with BlobStore(self._data_dir).adding():  # deletion waits until the row names the arrays
            with self._database.read() as c:
                if datasets.get(c, dataset.id) is None:
                    return
            num_bytes = install(folder / "arrays", self._data_dir, content["digest"])
            with self._database.write() as c:
                datasets.accept(c, dataset.id, content=content, num_bytes=num_bytes, report=result["report"])
        logger.info("dataset %s is ready", dataset.id)

    def _refuse(self, dataset: Dataset, report: dict[str, Any]) -> None:
        with self._database.write() as c:
            datasets.refuse(c, dataset.id, report)
        logger.info("dataset %s is refused", dataset.id)

    def _draw(self, sheet: Sheet, lock: int) -> None:
        folder = work_folder(self._data_dir, sheet.key)
        self._empty(folder)
        spec, drawn = folder / "spec.json", folder / "sheet.png"
        spec.write_text(json.dumps(sheet.spec))
        arguments = (str(spec), "-o", str(drawn), "--data-dir", str(self._data_dir))
        ended = self._run((*DRAW, *arguments), folder / "log", lock, DRAWING_SECONDS, b"")
        if ended == 0:
            target = sheet_path(self._data_dir, sheet.key)
            target.parent.mkdir(parents=True, exist_ok=True)
            drawn.rename(target)
        if ended is not None:
            with self._database.write() as c:
                datasets.finish_sheet(c, sheet.key, None if ended == 0 else _tail(folder / "log") or _reason(ended))
        shutil.rmtree(folder)

    def _run(self, command: Sequence[str], log: Path, lock: int, seconds: float, request: bytes) -> int | None:
        """How a process of ours ended, negative by a signal; None when it was broken off because the worker stops.

        It holds the lock as long as it lives, and ends when its standard input does.
        """
        deadline = time.monotonic() + seconds
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=trainer_environment(threads=1, gpu=None),
                start_new_session=True,
                pass_fds=(lock,),
            ) as process,
        ):
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
            while (ended := process.poll()) is None:
                if self._stopping.wait(LOOP_SECONDS) or time.monotonic() > deadline:
                    process.kill()
                    ended = process.wait()
                    return None if self._stopping.is_set() else ended
            return ended

    def _empty(self, folder: Path) -> None:
        """What an attempt that was killed has left is thrown away."""
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        folder.mkdir(parents=True)

    def _repeat(self, action: Callable[[], None]) -> None:
        while not self._stopping.wait(self._settings.poll_seconds):
            try:
                action()
            except (DatabaseUnavailable, OSError) as error:
                logger.warning("datasets wait: %s", error)


def _reason(ended: int) -> str:
    """What an exit code of validation or drawing means for a user."""
    if ended >= 0:
        return f"the process that read it ended with exit code {ended}"
    name = signal.Signals(-ended).name
    limits = {"SIGXCPU": "more time than it may", "SIGKILL": "more memory or time than it may"}
    return f"reading it takes {limits[name]}" if name in limits else f"the process that read it was ended by {name}"


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:500] if lines else ""
