"""One job and its supervisor, for tests of what becomes of it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.processes import descendants, wait_until
from tests.worker.trainers import program
from worker.jobs import Fenced, Job
from worker.settings import Settings
from worker.starters import FreshStarter, Starter
from worker.store import attempts, intents, jobs
from worker.store.database import Database
from worker.supervisor import Supervisor

KEEPS_REQUEST = "pathlib.Path(request['dataset_dir'], 'request.json').write_text(json.dumps(request))\n"
"""Begins the body of a trainer that writes down what it was asked."""


@dataclass
class Bench:
    """One job, and what a worker needs to supervise it."""

    database: Database
    settings: Settings
    job_id: str
    draining: threading.Event = field(default_factory=threading.Event)

    def claim(self) -> Job:
        with self.database.write() as c:
            job = attempts.claim(c, worker_id="w", device="cpu")
        assert job is not None
        return job

    def supervisor(self, body: str, starter: Starter | None = None) -> Supervisor:
        return Supervisor(
            self.database,
            self.settings,
            self.claim(),
            starter=starter or FreshStarter(program(body)),
            gpu=None,
            draining=self.draining,
        )

    def run(self, body: str) -> Job:
        self.supervisor(body).run()
        return self.job

    @contextmanager
    def running(self, body: str) -> Iterator[set[int]]:
        """Supervise in a thread, from when the trainer has started; gives the processes that then exist."""
        before = descendants(os.getpid())
        supervisor = self.supervisor(body)
        caught: list[BaseException] = []

        def run() -> None:
            try:
                supervisor.run()
            except Fenced as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: self.job.determinism is not None)
        yield descendants(os.getpid()) - before
        thread.join(20)
        assert not thread.is_alive()

    @property
    def job(self) -> Job:
        with self.database.read() as c:
            job = jobs.get(c, self.job_id)
        assert job is not None
        return job

    def request(self) -> dict[str, Any]:
        """What the newest trainer was asked, if it keeps that."""
        request: dict[str, Any] = json.loads((self.settings.data_dir / "request.json").read_text())
        return request

    def cancel(self, now: bool = False) -> None:
        with self.database.write() as c:
            intents.request_cancel(c, self.job_id, now)

    def pause(self) -> None:
        with self.database.write() as c:
            intents.request_pause(c, self.job_id)

    def attempts(self) -> list[attempts.Attempt]:
        with self.database.read() as c:
            return attempts.list_for(c, self.job_id)
