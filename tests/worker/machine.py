"""Clients, workers and observers do what they may in any order, and the invariants I1–I11 hold after every step.

The same machine drives the model alone, and the model beside a real store; both must always agree. Workers do not learn
that they have lost a job: they go on writing, as a process does that was stopped for longer than its lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)
from sqlalchemy import Connection, delete
from sqlalchemy.exc import IntegrityError

from cnn.spec import TrainingSpec
from tests.worker.model import MAX_FRUITLESS, Model, Refused
from worker.jobs import TRANSITIONS, Blame, Fenced, InvalidTransition, JobError, JobResult, JobStatus
from worker.store import attempts, events, intents, jobs, metrics, retries, tables
from worker.store.database import Database
from worker.store.metrics import Point
from worker.store.retries import RetryPolicy

POLICY = RetryPolicy(max_fruitless=MAX_FRUITLESS, backoff_seconds=0)
CRASH = JobError(code="trainer_crashed", message="it died", blame=Blame.PLATFORM, retryable=True)
RESULT = JobResult(test_loss=1.0, test_accuracy=0.5, weights="last", epoch=1, step=1, artifact="a", sha256="0" * 64)
ASKED: dict[str, tuple[Callable[[Model], Any], Callable[[Connection, str], Any]]] = {
    "cancel": (Model.cancel, intents.request_cancel),
    "pause": (Model.pause, intents.request_pause),
    "resume": (Model.resume, intents.resume),
    "retry": (partial(Model.retry, scratch=False), intents.retry),
    "retry from scratch": (partial(Model.retry, scratch=True), partial(intents.retry, scratch=True)),
}
finish = partial(attempts.finish, reason="ended")
ENDINGS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "success": (
        partial(Model.finish, status=JobStatus.SUCCEEDED),
        partial(finish, status=JobStatus.SUCCEEDED, result=RESULT),
    ),
    "failure": (partial(Model.finish, status=JobStatus.FAILED), partial(finish, status=JobStatus.FAILED, error=CRASH)),
    "cancelled": (partial(Model.finish, status=JobStatus.CANCELLED), partial(finish, status=JobStatus.CANCELLED)),
    "drained": (Model.drain, partial(attempts.requeue, reason="worker_drained")),
    "crashed": (Model.crash, partial(retries.crash, error=CRASH, policy=POLICY)),
    "disk full": (Model.meet_full_disk, attempts.pause_for_disk),
}
NAMES = (
    "status",
    "intent",
    "pause_reason",
    "attempt",
    "first_attempt",
    "token",
    "heartbeat",
    "fruitless_attempts",
    "checkpoint_step",
)
"""What the store and the model both know."""
MAX_JOBS = 3
"""Few, so that much happens to each."""
SLOTS = 2
WORKERS = ("w-1", "w-2", "w-3")


@dataclass
class Held:
    """What a worker believes to hold; when it was taken back meanwhile, the worker does not know."""

    worker: str
    job_id: str
    token: int
    step: int


class Workers(RuleBasedStateMachine):
    """Workers that lose their jobs and do not know it, on the model alone, or beside it on a store."""

    database: ClassVar[Database | None] = None
    spec: ClassVar[TrainingSpec]
    compares: ClassVar[bool] = True
    """Whether the store must agree with the model; else only the history of each job is looked at."""
    legal: ClassVar[Mapping[JobStatus, frozenset[JobStatus]]] = TRANSITIONS

    submitted: Bundle[str] = Bundle("submitted")
    holds: Bundle[Held] = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Model] = {}
        self.slots: Counter[str] = Counter()
        self.seen: dict[str, tuple[int, int]] = {}
        if self.database is not None:
            with self.database.write() as c:
                for table in (tables.artifacts, tables.metrics, tables.events, tables.attempts, tables.jobs):
                    c.execute(delete(table))

    def both(self, on_model: Callable[[], Any], on_store: Callable[[Connection], Any]) -> None:
        """Do it on both, which must agree on whether it may be done."""
        expected = _refusal(on_model)
        if self.database is not None:
            with self.database.write() as c:
                came = _refusal(partial(on_store, c))
            self.agree(came, expected)

    def agree(self, came: object, expected: object) -> None:
        assert came == expected or not self.compares, f"the store answers {came}, the rules say {expected}"

    @precondition(lambda self: len(self.models) < MAX_JOBS)
    @rule(target=submitted, priority=st.integers(0, 1))
    def submit(self, priority: int) -> str:
        number = len(self.models)
        job_id = f"job {number}"
        if self.database is not None:
            with self.database.write() as c:
                job_id = jobs.create(c, spec=self.spec, name=None, priority=priority).id
        self.models[job_id] = Model(job_id, priority, number)
        return job_id

    @rule(target=holds, worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> Any:
        waiting = [job for job in self.models.values() if job.status == JobStatus.QUEUED]
        best = min(waiting, key=lambda job: (-job.priority, job.number), default=None)
        if self.slots[worker] == SLOTS:
            return multiple()
        if self.database is not None:
            with self.database.write() as c:
                job = attempts.claim(c, worker_id=worker, device="cpu")
                if job is not None:
                    metrics.resume(c, job.id, job.token, step=job.checkpoint_step)
            self.agree(job and job.id, best and best.id)
            best = job and self.models[job.id]
        if best is None:
            return multiple()
        best.claim()
        self.slots[worker] += 1
        return Held(worker, best.id, best.token, best.checkpoint_step)

    @rule(held=holds)
    def beat(self, held: Held) -> None:
        self.write(held, Model.beat, attempts.heartbeat)

    @rule(held=holds, steps=st.integers(1, 3), saved=st.booleans())
    def train(self, held: Held, steps: int, saved: bool) -> None:
        held.step += steps
        point = Point(key="val_loss", epoch=1, step=held.step, value=float(held.token), at=datetime.now(UTC))
        self.write(held, partial(Model.measure, step=held.step), partial(metrics.append, rows=[point]))
        if saved:
            save = partial(attempts.checkpoint, epoch=1, step=held.step)
            self.write(held, partial(Model.save, step=held.step), save)

    @rule(held=consumes(holds), how=st.sampled_from(list(ENDINGS)))
    def end(self, held: Held, how: str) -> None:
        self.slots[held.worker] -= 1
        self.write(held, *ENDINGS[how])

    def write(self, held: Held, on_model: Callable[..., Any], on_store: Callable[..., Any]) -> None:
        model = self.models[held.job_id]
        self.both(lambda: on_model(model, held.token), lambda c: on_store(c, held.job_id, held.token))

    @rule(held=holds)
    def lose(self, held: Held) -> None:
        """The worker was silent for a whole lease."""
        self.expire(held.job_id, held.token, self.models[held.job_id].heartbeat)

    def expire(self, job_id: str, token: int, heartbeat: int) -> None:
        taken = self.models[job_id].take_back(token, heartbeat)
        if self.database is not None:
            with self.database.write() as c:
                job = retries.take_back(c, job_id, token, heartbeat, policy=POLICY)
            self.agree(job is not None, taken)

    # After every step.

    @precondition(lambda self: self.compares)
    @invariant()
    def the_rules_keep_the_invariants(self) -> None:
        for job in self.models.values():
            _check_edges(job.edges)
            assert job.fruitless_attempts <= MAX_FRUITLESS, "I11"
            assert job.fruitless_attempts < MAX_FRUITLESS or job.status == JobStatus.FAILED, "I11"
            self._check_never_falls(job.id, job.attempt, job.token)
        running = [job for job in self.models.values() if job.status == JobStatus.RUNNING]
        assert len(running) <= SLOTS * len(WORKERS), "I9"

    @precondition(lambda self: self.database is not None)
    @invariant()
    def the_store_says_what_the_rules_say(self) -> None:
        assert self.database is not None
        with self.database.read() as c:
            stored = {job.id: job for job in jobs.page(c, limit=1000)}
            assert stored.keys() == self.models.keys(), "I1, I2"
            running = Counter(job.worker_id for job in stored.values() if job.status == JobStatus.RUNNING)
            assert all(count <= SLOTS for count in running.values()), "I9"
            for job in stored.values():
                happened = events.after(c, job.id, 0, 1000)
                edges = [event.data for event in happened if event.type == "job.status"]
                _check_edges([(edge["from"], JobStatus(edge["to"]), edge["reason"]) for edge in edges], self.legal)
                if self.compares:
                    assert [event.id for event in happened] == list(range(1, job.last_event_id + 1)), "I8"
                    self._compare(c, job, self.models[job.id])
                else:
                    vars(self.models[job.id]).update({name: getattr(job, name) for name in NAMES})

    def _compare(self, c: Connection, job: Any, model: Model) -> None:
        assert [getattr(job, name) for name in NAMES] == [getattr(model, name) for name in NAMES]
        points = metrics.points(c, job.id, limit=1000)
        assert [point.step for point in points] == sorted(model.points), "I7"
        tried = attempts.list_for(c, job.id)
        assert [attempt.number for attempt in tried] == list(range(1, job.attempt + 1)), "I5"
        assert [attempt.ended_at is None for attempt in tried].count(True) == (job.status == JobStatus.RUNNING)

    def _check_never_falls(self, job_id: str, attempt: int, token: int) -> None:
        before = self.seen.get(job_id, (0, 0))
        assert attempt >= before[0], "I5"
        assert token >= before[1], "I5"
        self.seen[job_id] = attempt, token


class Rules(Workers):
    """Beside them clients, and observers that act on what they saw long ago."""

    sightings: Bundle[tuple[str, int, int]] = Bundle("sightings")

    @rule(job_id=Workers.submitted, asked=st.sampled_from(list(ASKED)))
    def ask(self, job_id: str, asked: str) -> None:
        on_model, on_store = ASKED[asked]
        self.both(lambda: on_model(self.models[job_id]), lambda c: on_store(c, job_id))

    @rule(target=sightings, job_id=Workers.submitted)
    def look(self, job_id: str) -> tuple[str, int, int]:
        model = self.models[job_id]
        return job_id, model.token, model.heartbeat

    @rule(sighting=sightings)
    def take_back(self, sighting: tuple[str, int, int]) -> None:
        self.expire(*sighting)

    @rule(job_id=Workers.submitted)
    def find_room(self, job_id: str) -> None:
        found = self.models[job_id].find_room()
        if self.database is not None:
            with self.database.write() as c:
                self.agree(intents.resume_from_disk_full(c, job_id), found)


def _check_edges(
    edges: list[tuple[JobStatus | None, JobStatus, str]], legal: Mapping[JobStatus, frozenset[JobStatus]] = TRANSITIONS
) -> None:
    ended = 0
    for before, (origin, to, reason) in zip([None, *(edge[1] for edge in edges)], edges, strict=False):
        ended = 0 if reason == "retried" else ended + to.terminal
        assert ended <= 1, "I4: a job ended twice"
        assert origin == before, "I5"
        assert origin is None or to in legal[origin], "I5"


def _refusal(action: Callable[[], Any]) -> str | None:
    """Why it was refused; None when it was done."""
    try:
        action()
    except Fenced:
        return "fenced"
    except (InvalidTransition, Refused, IntegrityError):  # the last: the conditions of the tables
        return "refused"
    return None
