"""The Celery task, and the slots that bells and polls share."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from queue import Empty, SimpleQueue

from celery import Celery
from kombu.asynchronous.hub import get_event_loop

from worker.devices import Capacity, find_domains
from worker.jobs import Blame, ErrorCode, Fenced, Job, JobError
from worker.queue import TASK
from worker.settings import Settings
from worker.starters import Starter
from worker.store import attempts, claims, retries, workers
from worker.store.database import Database, DatabaseUnavailable
from worker.store.domains import fits
from worker.store.retries import RetryPolicy
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

READY_SECONDS = 0.5
FREED_SECONDS = 0.02
"""Celery asks for no bell while all of its threads are busy, and sees only within a second that one no longer is. So it
is woken, this long after the work is done: before, it still counts the last bell."""
EMPTY_SECONDS = 0.2
"""How long a bell that was for nothing keeps its thread: jobs that no worker may take are rung for again and again."""


class Worker:
    """Claims and supervises jobs, as many at once as it has slots.

    Whoever hears of work (a bell, or the slow poll of a worker with a free slot) calls `work`. That the worker is there
    is said as often as a heartbeat is due, however slow the poll is.

    Args:
        starter: starts the trainers.
    """

    def __init__(self, database: Database, settings: Settings, capacity: Capacity, starter: Starter) -> None:
        self.id = f"w-{secrets.token_hex(4)}"
        self.draining = threading.Event()
        self._database = database
        self._settings = settings
        self._capacity = capacity
        self._starter = starter
        self._domains: dict[str, str] = {}
        self._finding_domains = threading.Lock()
        self._rung = threading.Event()
        self._free: SimpleQueue[int] = SimpleQueue()
        for slot in range(capacity.slots):
            self._free.put(slot)
        self._presence = threading.Thread(target=self._be_present, name="presence", daemon=True)

    def start(self) -> None:
        """Write the worker's row, keep it fresh, begin to warm up and to poll.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self._database.write() as c:
            workers.register(
                c,
                worker_id=self.id,
                host=socket.gethostname(),
                pid=os.getpid(),
                device=self._capacity.device,
                slots=self._capacity.slots,
                threads=self._capacity.threads,
                gpus_per_slot=self._capacity.gpus_per_slot,
            )
        self._starter.ready(0)
        self._presence.start()

    def stop(self) -> None:
        """Claim nothing more, send what runs back to the queue, and wait until that is done."""
        self.draining.set()
        deadline = time.monotonic() + self._settings.drain_grace_seconds + 10
        for _ in range(self._capacity.slots):
            try:
                self._free.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                logger.error("a trainer is still there after the grace; it ends with this process")
                break
        try:
            with self._database.write() as c:
                workers.beat(c, self.id, "stopped")
        except DatabaseUnavailable as error:
            logger.warning("the end of worker %s is not recorded: %s", self.id, error)

    def work(self) -> bool:
        """Train queued jobs until none is left; returns at once when every slot is busy doing that.

        Returns:
            Whether it has trained any.
        """
        trained = False
        self._rung.set()
        # A bell that rings after the last look at the queue, and before the slot is free again, is not lost.
        while self._rung.is_set() and not self.draining.is_set():
            try:
                slot = self._free.get_nowait()
            except Empty:
                break
            try:
                self._rung.clear()
                while not self.draining.is_set() and (job := self._next()) is not None:
                    self._train(job, slot)
                    trained = True
            finally:
                self._free.put(slot)
        return trained

    def _next(self) -> Job | None:
        """The next job, claimed only once it can begin: from then on it must have its heartbeats."""
        while not self._starter.ready(READY_SECONDS):
            if self.draining.is_set():
                return None
        return self._claim()

    def _know_domains(self) -> bool:
        """Whether trainers work here, and in which determinism domains: until then nothing is claimed.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with self._finding_domains:
            if not self._domains:
                found = find_domains(self._starter, self._capacity, self.draining, native=self._settings.native)
                with self._database.write() as c:
                    workers.record_domains(c, self.id, found)
                self._domains = found
            return bool(self._domains)

    def _claim(self) -> Job | None:
        capacity = self._capacity
        try:
            if not self._know_domains():
                return None
            with self._database.write() as c:
                return attempts.claim(
                    c,
                    worker_id=self.id,
                    device=capacity.device,
                    threads=capacity.threads,
                    domains=self._domains,
                    gpus=capacity.gpus_per_slot,
                )
        except DatabaseUnavailable as error:
            logger.warning("nothing can be claimed: %s", error)
            return None

    def _train(self, job: Job, slot: int) -> None:
        logger.info("job %s, attempt %d begins", job.id, job.attempt)
        supervisor = Supervisor(
            self._database,
            self._settings,
            job,
            starter=self._starter,
            gpu=self._capacity.gpu_of(slot),
            draining=self.draining,
        )
        try:
            supervisor.run()
        except Fenced as error:
            logger.warning("job %s goes on elsewhere: %s", job.id, error)
        except DatabaseUnavailable as error:
            logger.error("job %s is left to the lease, its end cannot be written: %s", job.id, error)
        except Exception as error:
            logger.exception("job %s cannot be supervised", job.id)
            self._record_defect(job, error)

    def _record_defect(self, job: Job, error: Exception) -> None:
        internal = JobError(
            code=ErrorCode.INTERNAL,
            message=f"the job could not be supervised: {type(error).__name__}: {error}",
            blame=Blame.PLATFORM,
            retryable=True,
        )
        try:
            with self._database.write() as c:
                retries.crash(c, job.id, job.token, error=internal, policy=RetryPolicy.of(self._settings))
        except (Fenced, DatabaseUnavailable) as unrecorded:
            logger.error("job %s: %s", job.id, unrecorded)

    def _be_present(self) -> None:
        """Say that the worker is there, and look for work that no bell told of."""
        pause = min(self._settings.heartbeat_seconds, self._settings.poll_seconds)
        next_poll = time.monotonic() + self._settings.poll_seconds
        while not self.draining.wait(pause):
            try:
                with self._database.write() as c:
                    workers.beat(c, self.id, "active")
                can_begin = self._starter.ready(0) and self._know_domains()
                if can_begin and time.monotonic() >= next_poll:
                    next_poll = time.monotonic() + self._settings.poll_seconds
                    self._poll()
            except DatabaseUnavailable as error:
                logger.warning("cannot poll: %s", error)

    def _poll(self) -> None:
        """Begin to work where there is a slot, and a job that fits.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        if self._free.empty():
            return
        capacity = self._capacity
        fitting = fits(capacity.device, capacity.threads, self._domains, capacity.gpus_per_slot)
        with self._database.read() as c:
            waiting = claims.claimable_ids(c, limit=1, fitting=fitting)
        if waiting:
            # Not a daemon: the process must not end before the job's end is recorded.
            threading.Thread(target=self.work, name="polled").start()


def register_task(app: Celery, worker: Worker) -> None:
    """Answer bells with `worker.work`."""

    def work(job_id: str) -> None:
        logger.debug("rung for job %s", job_id)
        if not worker.work():
            worker.draining.wait(EMPTY_SECONDS)
        loop = get_event_loop()
        assert loop is not None, "Celery runs, which has called this"
        loop.call_soon(loop.call_later, FREED_SECONDS, _wake)  # type: ignore[no-untyped-call]

    app.task(name=TASK)(work)


def _wake() -> None:
    """Nothing: to call it, Celery's loop wakes, and whenever it does so it asks for bells."""
