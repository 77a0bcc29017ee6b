"""Supervises one attempt at a job: starts its trainer, records what it says, forwards intents, records its end."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from cnn.spec import TrainingSpec
from worker.artifacts import BlobStore, attempt_folder, carry_over, newest_checkpoint, remove_attempts
from worker.disk import is_disk_full, remove_unfinished
from worker.endings import (
    Cancelled,
    Crashed,
    DiskFull,
    Drained,
    Ending,
    Failed,
    Paused,
    Stop,
    Succeeded,
    classify,
    not_started,
)
from worker.jobs import WEIGHTS, Intent, Job, JobResult, JobStatus
from worker.logs import log_path, tail
from worker.memory import Shortage, machine_bytes, oom_kills, shortage
from worker.process import Message, TrainerProcess
from worker.recording import Recorder
from worker.settings import Settings, trainer_environment
from worker.starters import Starter, StartFailed
from worker.store import artifacts, attempts, metrics, retries
from worker.store.database import Database, DatabaseUnavailable
from worker.store.domains import has_kernels

logger = logging.getLogger(__name__)

LOOP_SECONDS = 0.5
"""How long a message or a wish of the user may wait, except at the start: every look at the database takes time from
the jobs that train on this machine."""
GATHERING_SHARE = 1 / 8
"""A young attempt's messages wait for others of their transaction for this share of its age, up to the time above."""

T = TypeVar("T")


class Supervisor:
    """One attempt at a job that this process has claimed.

    Args:
        starter: starts the trainer.
        gpu: the GPU of the slot; ignored when the job trains on the CPU.
        draining: set when the worker must stop soon.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        job: Job,
        *,
        starter: Starter,
        gpu: str | None,
        draining: threading.Event,
    ) -> None:
        self._database = database
        self._settings = settings
        self._job = job
        self._starter = starter
        self._gpu = gpu if job.device == "cuda" else None
        self._draining = draining
        self._recorder = Recorder(job)
        self._folder = attempt_folder(settings.data_dir.absolute(), job.id, job.attempt)
        self._oom_kills = oom_kills()
        self._next_heartbeat = 0.0
        self._wish = attempts.Wish(intent=None)
        self._stop: Stop | None = None
        self._kill_at = math.inf
        left = math.inf if job.max_runtime_seconds is None else job.max_runtime_seconds - job.runtime_seconds
        self._began = time.monotonic()
        self._limit_at = self._began + left

    def run(self) -> None:
        """From the start of the trainer to the recorded end of the attempt.

        A full disk pauses the job. A trainer that cannot be started counts as one that crashed.

        Raises:
            Fenced: the job was taken back; its trainer is gone, and nothing more was written.
            DatabaseUnavailable: the worker must stop while the database is away.
        """
        try:
            self._run()
        except StartFailed as error:
            self._finish(not_started(str(error)), attempts.UNSEEN)
        except OSError as error:
            # The holder of a job that was taken back may have moved or removed the files of this attempt.
            self._persist(lambda c: attempts.hold(c, self._job.id, self._job.token))
            if not is_disk_full(error):
                raise
            logger.warning("job %s waits for room on the disk: %s", self._job.id, error)
            remove_unfinished(self._folder)
            self._persist(lambda c: attempts.pause_for_disk(c, self._job.id, self._job.token))

    def _run(self) -> None:
        job = self._job
        self._folder.create()
        carry_over(self._settings.data_dir, job.id, job.attempt, job.first_attempt)
        step, checkpoint = newest_checkpoint(self._settings.data_dir, job.id, job.attempt) or (0, None)
        self._persist(lambda c: metrics.resume(c, job.id, job.token, step=step))
        with self._start(checkpoint, self._persist(self._initial_weights)) as trainer:
            while not self._ends(trainer):
                self._receive(trainer)
                self._record()
                self._forward(trainer)
            while self._receive(trainer) or not self._recorder.room:  # many wait after an outage of the database
                self._persist(self._write)
                self._recorder.written()
        log_tail = tail(log_path(self._settings.data_dir, job.id))
        ending = classify(trainer.exit, self._recorder.last, self._stop, log_tail, self._shortage())
        self._finish(ending, trainer.exit)

    def _shortage(self) -> Shortage | None:
        """What memory the job may lack, if the kernel has killed for lack of it since the attempt began."""
        kills = oom_kills()
        if kills == self._oom_kills:
            return None
        spec = TrainingSpec.model_validate_json(json.dumps(self._job.spec))
        return shortage(spec, machine_bytes(), proven=kills.of_own_group)

    def _initial_weights(self, c: Connection) -> Path | None:
        """The weights of the job that `training.init_from` names; None without one, or when it was deleted since."""
        source = self._job.spec["training"]["init_from"]
        weights = source and artifacts.get(c, source, WEIGHTS)
        return BlobStore(self._settings.data_dir).path(weights.sha256).absolute() if weights else None

    def _start(self, checkpoint: Path | None, initial: Path | None) -> TrainerProcess:
        job, data_dir = self._job, self._settings.data_dir.absolute()
        folder = self._folder
        threads = job.threads or 1
        return TrainerProcess(
            self._starter,
            environment=trainer_environment(threads=threads, gpu=self._gpu),
            log=log_path(data_dir, job.id),
            attempt=job.attempt,
            request={
                "job_id": job.id,
                "attempt": job.attempt,
                "spec": job.spec,
                "dataset_dir": str(data_dir),
                "workdir": str(folder.path),
                "checkpoints_dir": str(folder.checkpoints),
                "artifacts_dir": str(folder.artifacts),
                "init_weights": None if initial is None else str(initial),
                "resume_from": None if checkpoint is None else str(checkpoint.absolute()),
                "threads": threads,
                "device": job.device,
                "native": has_kernels(job.domain),
            },
        )

    def _ends(self, trainer: TrainerProcess) -> bool:
        """Whether the trainer has ended, soon after its next message: at the start somebody waits for that."""
        gathering = min(LOOP_SECONDS, GATHERING_SHARE * (time.monotonic() - self._began))
        trainer.hear(LOOP_SECONDS - gathering)
        return trainer.wait(gathering)

    def _receive(self, trainer: TrainerProcess) -> bool:
        """Take in messages for the next transaction; whether there were any."""
        messages = trainer.take(self._recorder.room)
        for message in messages:
            self._recorder.receive(message)
        return bool(messages)

    def _record(self) -> None:
        """Write what is new, and a heartbeat when it is due; while the database is away, it waits for the next time."""
        try:
            if self._recorder.pending or time.monotonic() >= self._next_heartbeat:
                with self._database.write() as c:
                    self._write(c)
                self._recorder.written()
                self._next_heartbeat = time.monotonic() + self._settings.heartbeat_seconds
            else:
                with self._database.read() as c:
                    self._wish = attempts.wish(c, self._job.id, self._job.token)
        except DatabaseUnavailable as error:
            logger.warning("job %s trains on unrecorded: %s", self._job.id, error)

    def _write(self, c: Connection) -> None:
        self._wish = attempts.heartbeat(c, self._job.id, self._job.token)
        self._recorder.write(c)

    def _forward(self, trainer: TrainerProcess) -> None:
        """Ask the trainer to stop when the user or the worker wants it to, and kill it when its grace is over."""
        if self._wish.now:
            self._stop, self._kill_at = Stop.CANCEL, -math.inf
        elif self._wish.intent == Intent.CANCEL and self._stop != Stop.CANCEL:
            self._ask(trainer, Stop.CANCEL, self._settings.cancel_grace_seconds)
        elif self._wish.intent == Intent.PAUSE and self._stop not in (Stop.CANCEL, Stop.PAUSE):
            self._ask(trainer, Stop.PAUSE, self._settings.cancel_grace_seconds)
        elif time.monotonic() >= self._limit_at and self._stop is None:
            self._ask(trainer, Stop.LIMIT, self._settings.cancel_grace_seconds)
        elif self._draining.is_set() and self._stop is None:
            self._ask(trainer, Stop.DRAIN, self._settings.drain_grace_seconds)
        if time.monotonic() >= self._kill_at:
            logger.warning("job %s: the trainer has no grace left and is killed", self._job.id)
            trainer.kill()

    def _ask(self, trainer: TrainerProcess, stop: Stop, grace: float) -> None:
        self._stop = stop
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        trainer.terminate()

    def _finish(self, ending: Ending, exit: attempts.Exit) -> None:
        if isinstance(ending, DiskFull):
            remove_unfinished(self._folder)
        blobs = BlobStore(self._settings.data_dir)
        with blobs.adding():
            files = [] if isinstance(ending, Crashed | Drained | Paused | DiskFull) else self._stored_files(blobs)
            job = self._persist(lambda c: self._end(c, ending, files, exit))
        if isinstance(ending, Succeeded):  # all others may go on
            remove_attempts(self._settings.data_dir, job.id)
        logger.info("job %s, attempt %d: %s", job.id, job.attempt, job.status)

    def _stored_files(self, blobs: BlobStore) -> list[artifacts.NewArtifact]:
        """Those of the trainer. They may be large and the disk slow: meanwhile the job must not look lost."""
        with ThreadPoolExecutor(1) as beside:
            storing = beside.submit(self._store_files, blobs)
            while not wait([storing], LOOP_SECONDS).done:
                self._record()
        return storing.result()

    def _store_files(self, blobs: BlobStore) -> list[artifacts.NewArtifact]:
        files = {}
        for message in self._recorder.artifacts:
            sha256, size = blobs.put(Path(message["path"]))
            files[message["name"]] = artifacts.NewArtifact(
                name=message["name"], bytes=size, sha256=sha256, media_type=message["media_type"], step=message["step"]
            )
        return list(files.values())

    def _end(self, c: Connection, ending: Ending, files: Sequence[artifacts.NewArtifact], exit: attempts.Exit) -> Job:
        """Write the rest and the end of the attempt, all in one transaction."""
        held = self._job.id, self._job.token
        self._recorder.write(c, everything=True)
        artifacts.add(c, *held, files)
        match ending:
            case Succeeded(result):
                return attempts.finish(
                    c, *held, JobStatus.SUCCEEDED, reason="trained", result=_result(result, files), exit=exit
                )
            case Failed(error):
                return attempts.finish(c, *held, JobStatus.FAILED, reason=error.code, error=error, exit=exit)
            case Cancelled():
                return attempts.finish(c, *held, JobStatus.CANCELLED, reason="cancelled", exit=exit)
            case Paused():
                return attempts.requeue(c, *held, reason="paused", exit=exit)
            case DiskFull():
                return attempts.pause_for_disk(c, *held, exit=exit)
            case Drained():
                return attempts.requeue(c, *held, reason="worker_drained", exit=exit)
            case Crashed(error):
                policy = retries.RetryPolicy.of(self._settings)
                return retries.crash(c, *held, error=error, policy=policy, exit=exit)

    def _persist(self, write: Callable[[Connection], T]) -> T:
        """Write, waiting for as long as the database is away: its absence is no reason to lose work."""
        while True:
            try:
                with self._database.write() as c:
                    return write(c)
            except DatabaseUnavailable as error:
                if self._draining.is_set():
                    raise
                logger.warning("job %s waits for the database: %s", self._job.id, error)
            self._draining.wait(LOOP_SECONDS)


def _result(message: Message, files: Sequence[artifacts.NewArtifact]) -> JobResult:
    (weights,) = (file for file in files if file.name == WEIGHTS)
    return JobResult(
        test_loss=message["test_loss"],
        test_accuracy=message["test_accuracy"],
        weights=message["weights"],
        epoch=message["epoch"],
        step=message["step"],
        artifact=WEIGHTS,
        sha256=weights.sha256,
    )
