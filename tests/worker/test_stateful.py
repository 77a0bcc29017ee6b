"""Clients, workers and observers do what they may in any order, and the invariants I1–I11 hold after every step.

The same machine drives the model alone, and the model beside a real store; both must always agree. Workers do not learn
that they have lost a job: they go on writing, as a process does that was stopped for longer than its lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, delete

from cnn.spec import TrainingSpec
from tests.worker.model import MAX_FRUITLESS, Model, Refused
from worker.jobs import TRANSITIONS, Blame, Fenced, InvalidTransition, JobError, JobResult, JobStatus
from worker.store import attempts, events, intents, jobs, metrics, retries, tables
from worker.store import jobs as job_store
from worker.store.database import Database
from worker.store.metrics import Point
from worker.store.retries import RetryPolicy

POLICY = RetryPolicy(max_fruitless=MAX_FRUITLESS, backoff_seconds=0)
CRASH = JobError(code="trainer_crashed", message="it died", blame=Blame.PLATFORM, retryable=True)
RESULT = JobResult(test_loss=1.0, test_accuracy=0.5, weights="last", epoch=1, step=1, artifact="a", sha256="0" * 64)
ENDINGS = {
    JobStatus.SUCCEEDED: {"result": RESULT},
    JobStatus.FAILED: {"error": CRASH},
    JobStatus.CANCELLED: {},
}
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


class Rules(RuleBasedStateMachine):
    """On the model alone, or beside it on a store."""

    database: ClassVar[Database | None] = None
    spec: ClassVar[TrainingSpec]

    submitted: Bundle[str] = Bundle("submitted")
    holds: Bundle[Held] = Bundle("holds")
    sightings: Bundle[tuple[str, int, int]] = Bundle("sightings")

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Model] = {}
        self.slots: Counter[str] = Counter()
        self.seen: dict[str, tuple[int, int]] = {}
        if self.database is not None:
            with self.database.write() as c:
                for table in (tables.artifacts, tables.metrics, tables.events, tables.attempts, tables.jobs):
                    c.execute(delete(table))

    def both(self, on_model: Callable[[], Any], on_store: Callable[[Connection], Any]) -> bool:
        """Do it on both, which must agree on whether it may be done; whether it was."""
        expected = _refusal(on_model)
        if self.database is not None:
            with self.database.write() as c:
                came = _refusal(partial(on_store, c))
            assert came == expected, f"the store answers {came}, the rules say {expected}"
        return expected is None

    # Clients.

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

    @rule(job_id=submitted, now=st.booleans())
    def cancel(self, job_id: str, now: bool) -> None:
        self.both(self.models[job_id].cancel, lambda c: intents.request_cancel(c, job_id, now))

    @rule(job_id=submitted)
    def pause(self, job_id: str) -> None:
        self.both(self.models[job_id].pause, lambda c: intents.request_pause(c, job_id))

    @rule(job_id=submitted)
    def resume(self, job_id: str) -> None:
        self.both(self.models[job_id].resume, lambda c: intents.resume(c, job_id))

    @rule(job_id=submitted, scratch=st.booleans())
    def retry(self, job_id: str, scratch: bool) -> None:
        self.both(lambda: self.models[job_id].retry(scratch), lambda c: intents.retry(c, job_id, scratch))

    # Workers.

    @rule(target=holds, worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> Any:
        waiting = [job for job in self.models.values() if job.status == JobStatus.QUEUED]
        best = min(waiting, key=lambda job: (-job.priority, job.number), default=None)
        if self.slots[worker] == SLOTS:
            return multiple()
        if self.database is not None:
            with self.database.write() as c:
                job = attempts.claim(c, worker_id=worker, device="cpu")
                assert (job and job.id) == (best and best.id)
                if job is not None:
                    metrics.resume(c, job.id, job.token, step=job.checkpoint_step)
        if best is None:
            return multiple()
        best.claim()
        self.slots[worker] += 1
        return Held(worker, best.id, best.token, best.checkpoint)

    @rule(held=holds)
    def beat(self, held: Held) -> None:
        self.write(held, Model.beat, attempts.heartbeat)

    @rule(held=holds, steps=st.integers(1, 3))
    def train(self, held: Held, steps: int) -> None:
        held.step += steps
        point = Point(key="val_loss", epoch=1, step=held.step, value=float(held.token), at=datetime.now(UTC))
        self.write(held, partial(_reversed, Model.measure, held.step), partial(_reversed, metrics.append, [point]))

    @rule(held=holds)
    def save(self, held: Held) -> None:
        save = partial(attempts.checkpoint, epoch=1, step=held.step)
        self.write(held, partial(_reversed, Model.save, held.step), save)

    @rule(held=consumes(holds), status=st.sampled_from(list(ENDINGS)))
    def finish(self, held: Held, status: JobStatus) -> None:
        self.slots[held.worker] -= 1
        finish = partial(attempts.finish, status=status, reason="ended", **ENDINGS[status])
        self.write(held, partial(_reversed, Model.finish, status), finish)

    @rule(held=consumes(holds))
    def drain(self, held: Held) -> None:
        self.slots[held.worker] -= 1
        self.write(held, Model.drain, partial(attempts.requeue, reason="worker_drained"))

    @rule(held=consumes(holds))
    def crash(self, held: Held) -> None:
        self.slots[held.worker] -= 1
        self.write(held, Model.crash, partial(retries.crash, error=CRASH, policy=POLICY))

    @rule(held=consumes(holds))
    def meet_full_disk(self, held: Held) -> None:
        self.slots[held.worker] -= 1
        self.write(held, Model.meet_full_disk, attempts.pause_for_disk)

    def write(self, held: Held, on_model: Callable[..., Any], on_store: Callable[..., Any]) -> None:
        model = self.models[held.job_id]
        self.both(lambda: on_model(model, held.token), lambda c: on_store(c, held.job_id, held.token))

    # Observers.

    @rule(held=holds)
    def lose(self, held: Held) -> None:
        """The worker was silent for a whole lease."""
        self.take_back((held.job_id, held.token, self.models[held.job_id].heartbeat))

    @rule(target=sightings, job_id=submitted)
    def look(self, job_id: str) -> tuple[str, int, int]:
        model = self.models[job_id]
        return job_id, model.token, model.heartbeat

    @rule(sighting=sightings)
    def take_back(self, sighting: tuple[str, int, int]) -> None:
        job_id, token, heartbeat = sighting
        taken = self.models[job_id].take_back(token, heartbeat)
        if self.database is not None:
            with self.database.write() as c:
                job = retries.take_back(c, job_id, token, heartbeat, policy=POLICY)
            assert (job is not None) == taken

    @rule(job_id=submitted)
    def find_room(self, job_id: str) -> None:
        found = self.models[job_id].find_room()
        if self.database is not None:
            with self.database.write() as c:
                assert intents.resume_from_disk_full(c, job_id) == found

    # After every step.

    @invariant()
    def the_rules_keep_the_invariants(self) -> None:
        for job in self.models.values():
            _check_edges(job.edges)
            assert job.fruitless <= MAX_FRUITLESS, "I11"
            assert job.fruitless < MAX_FRUITLESS or job.status == JobStatus.FAILED, "I11"
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
                self._compare(c, job, self.models[job.id])

    def _compare(self, c: Connection, job: Any, model: Model) -> None:
        names = ("status", "intent", "pause_reason", "attempt", "token", "heartbeat", "first_attempt")
        assert [getattr(job, name) for name in names] == [getattr(model, name) for name in names]
        assert (job.fruitless_attempts, job.checkpoint_step) == (model.fruitless, model.checkpoint)
        happened = events.after(c, job.id, 0, 1000)
        assert [event.id for event in happened] == list(range(1, job.last_event_id + 1)), "I8"
        assert _edges(happened) == [edge[:2] for edge in model.edges], "I5"
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


class Unfenced(Rules):
    """On the store alone, without comparing it with the rules: only the history of each job is looked at."""

    def both(self, on_model: Callable[[], Any], on_store: Callable[[Connection], Any]) -> bool:
        assert self.database is not None
        _refusal(on_model)
        with self.database.write() as c:
            return _refusal(partial(on_store, c)) is None

    @rule(target=Rules.holds, worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> Any:
        assert self.database is not None
        with self.database.write() as c:
            job = attempts.claim(c, worker_id=worker, device="cpu")
        return multiple() if job is None else Held(worker, job.id, job.token, job.checkpoint_step)

    @invariant()
    def the_rules_keep_the_invariants(self) -> None:
        pass

    @invariant()
    def the_store_says_what_the_rules_say(self) -> None:
        assert self.database is not None
        with self.database.read() as c:
            for job in jobs.page(c, limit=1000):
                told = [event.data for event in events.after(c, job.id, 0, 1000, types=["job.status"])]
                _check_edges([(edge["from"], JobStatus(edge["to"]), edge["reason"]) for edge in told])


def _check_edges(edges: list[tuple[JobStatus | None, JobStatus, str]]) -> None:
    ended = 0
    for before, (origin, to, reason) in zip([None, *(edge[1] for edge in edges)], edges, strict=False):
        ended = 0 if reason == "retried" else ended + to.terminal
        assert ended <= 1, "I4: a job ended twice"
        assert origin == before, "I5"
        assert origin is None or to in TRANSITIONS[origin], "I5"


def _edges(happened: list[events.Event]) -> list[tuple[JobStatus | None, JobStatus]]:
    return [(event.data["from"], event.data["to"]) for event in happened if event.type == "job.status"]


def _refusal(action: Callable[[], Any]) -> str | None:
    """Why it was refused; None when it was done."""
    try:
        action()
    except Fenced:
        return "fenced"
    except (InvalidTransition, Refused):
        return "refused"
    return None


def _reversed(action: Callable[..., Any], last: Any, *first: Any) -> Any:
    return action(*first, last)


def run(machine: type[Rules], examples: int, *, find_only: bool = False) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
            phases=[Phase.generate] if find_only else list(Phase),
        ),
    )


def test_the_rules_keep_the_invariants() -> None:
    run(Rules, examples=100)


def test_the_store_keeps_the_rules(database: Database, spec: TrainingSpec) -> None:
    run(type("OnStore", (Rules,), {"database": database, "spec": spec}), examples=15)


def test_a_store_without_fencing_is_found_to_let_a_lost_worker_write(
    database: Database, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(c: Connection, job_id: str, token: int) -> Any:
        job = jobs.lock(c, job_id)
        if job.status != JobStatus.RUNNING:
            raise Fenced(job_id, token)
        return job

    monkeypatch.setattr(attempts, "held", held)
    monkeypatch.setattr(retries, "held", held)
    with pytest.raises(AssertionError, match="the store answers None, the rules say fenced"):
        run(type("OnStore", (Rules,), {"database": database, "spec": spec}), examples=200, find_only=True)


def test_a_store_without_fencing_and_transitions_is_found_to_end_a_job_twice(
    database: Database, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (attempts, retries):
        monkeypatch.setattr(module, "held", lambda c, job_id, _: jobs.lock(c, job_id))
    monkeypatch.setattr(job_store, "TRANSITIONS", dict.fromkeys(JobStatus, frozenset(JobStatus)))
    with pytest.raises(AssertionError, match="I4: a job ended twice"):
        run(type("OnStore", (Unfenced,), {"database": database, "spec": spec}), examples=200, find_only=True)
