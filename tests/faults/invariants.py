"""The invariants I1 to I12 of a drained installation, from its store, its files and its client's own history.

Each check gives a sentence per violation, with the invariant's number in front.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from tests.faults.history import Client
from tests.faults.installation import Installation
from tests.faults.reference import Outcome
from worker.artifacts import BlobStore
from worker.jobs import TRANSITIONS, WEIGHTS, Job, JobStatus
from worker.store import artifacts, attempts, events, jobs, metrics
from worker.store.attempts import Attempt
from worker.store.database import Database
from worker.store.events import Event
from worker.store.metrics import Point
from worker.store.tables import jobs as jobs_table
from worker.store.tables import workers as workers_table

EVERYTHING = 1_000_000
GOOD_ENDS = {"trained", "cancelled", "paused", "worker_drained"}
"""Ends of attempts that nobody counts."""


@dataclass(frozen=True)
class Story:
    """All that the store knows of a job."""

    job: Job
    attempts: list[Attempt]
    events: list[Event]
    points: list[Point]
    artifacts: list[artifacts.Artifact]

    @property
    def name(self) -> str:
        return f"{self.job.name} ({self.job.id})"


def violations(installation: Installation, expected: Mapping[str, Outcome]) -> list[str]:
    """What is not as promised, once nothing is left to do.

    Args:
        expected: the outcome of undisturbed runs, by the part of a job's name before the slash.
    """
    stories = read(installation.database)
    client = installation.client
    found = [*client.complaints, *_accepted(stories, client)]
    if installation.clock is None:
        found += _slots(installation.database, stories)
    found += [f"I10: process {pid} of {job_id} is left" for pid, job_id in installation.trainers.items()]
    for story in stories.values():
        found += _transitions(story)
        found += _attempts(story, installation.settings.max_fruitless_attempts)
        found += _files(story, installation.data_dir)
        found += _metrics(story)
        found += _numbered(story)
        if story.job.status == JobStatus.SUCCEEDED:
            found += _outcome(story, expected)
        elif story.job.id not in client.may_not_succeed:
            found.append(f"I12: {story.name} is {story.job.status}: {story.job.error}")
    return found


def read(database: Database) -> dict[str, Story]:
    """Every job's story by its id."""
    with database.read() as c:
        ids = list(c.execute(select(jobs_table.c.id).order_by(jobs_table.c.id)).scalars())
        return {
            job_id: Story(
                jobs.existing(c, job_id),
                attempts.list_for(c, job_id),
                events.after(c, job_id, after=0, limit=EVERYTHING),
                metrics.points(c, job_id, limit=EVERYTHING),
                artifacts.list_for(c, job_id),
            )
            for job_id in ids
        }


def _accepted(stories: Mapping[str, Story], client: Client) -> Iterator[str]:
    """Every promise was kept, nothing came unasked, and one wish made one job."""
    for promise in client.promises.values():
        story = stories.get(promise.id)
        if story is None:
            yield f"I1: {promise.name} ({promise.id}) was accepted and is gone"
        elif not story.job.terminal:
            yield f"I1: {story.name} is {story.job.status} after the drain"
        elif [event["id"] for event in promise.events] != [event.id for event in story.events]:
            yield f"I8: the client's stream of {story.name} is not the stored one"
    names = Counter(story.job.name for story in stories.values())
    yield from (f"I2: {name} was never asked for" for name in names if name not in client.asked)
    yield from (f"I3: {name} was asked for once and became {count} jobs" for name, count in names.items() if count > 1)


def _slots(database: Database, stories: Mapping[str, Story]) -> Iterator[str]:
    """No worker held more jobs at once than it has slots, by a clock that never jumped."""
    with database.read() as c:
        slots = {row.id: row.slots for row in c.execute(select(workers_table.c.id, workers_table.c.slots))}
    held = [attempt for story in stories.values() for attempt in story.attempts]
    for attempt in held:
        begun = attempt.started_at
        at_once = sum(
            other.worker_id == attempt.worker_id
            and other.started_at <= begun
            and (other.ended_at is None or other.ended_at > begun)
            for other in held
        )
        if at_once > slots[attempt.worker_id]:
            begun_as = f"attempt {attempt.number} of {attempt.job_id}"
            yield f"I9: {attempt.worker_id} held {at_once} jobs when it began {begun_as}"


def _transitions(story: Story) -> Iterator[str]:
    """Only legal edges, each from where the one before led; terminal only at the end of an attempt chain."""
    status: JobStatus | None = None
    attempt = 0
    terminal: Counter[int] = Counter()
    for event in story.events:
        if event.attempt < attempt:
            yield f"I5: event {event.id} of {story.name} is of attempt {event.attempt}, after one of {attempt}"
        attempt = event.attempt
        if event.type != "job.status":
            continue
        begun, to = event.data["from"], JobStatus(event.data["to"])
        if begun != status or (status is not None and to not in TRANSITIONS[status]):
            yield f"I5: {story.name} went from {begun} to {to} when it was {status}"
        terminal[event.attempt] += to.terminal
        status = to
    if status != story.job.status:
        yield f"I5: the events of {story.name} end with {status}, it is {story.job.status}"
    yield from (f"I4: attempt {n} of {story.name} ended {count} times" for n, count in terminal.items() if count > 1)


def _attempts(story: Story, max_fruitless: int) -> Iterator[str]:
    """Numbered from 1 with rising tokens, all closed, and never too many in a row without progress."""
    job, tried = story.job, story.attempts
    if [attempt.number for attempt in tried] != list(range(1, job.attempt + 1)):
        yield f"I5: {story.name} is at attempt {job.attempt} and has {[attempt.number for attempt in tried]}"
    tokens = [attempt.token for attempt in tried]
    if tokens != sorted(set(tokens)) or (tokens and tokens[-1] > job.token):
        yield f"I5: the tokens of {story.name} are {tokens}, then {job.token}"
    yield from (f"I4: attempt {one.number} of {story.name} is not closed" for one in tried if one.ended_at is None)
    retried = {event.attempt + 1 for event in story.events if event.data.get("reason") == "retried"}
    fruitless = 0
    for attempt, following in zip(tried, [*tried[1:], None], strict=False):
        reached = job.checkpoint_step if following is None else following.first_step
        if reached > attempt.first_step or attempt.number in retried:
            fruitless = 0
        fruitless += reached == attempt.first_step and attempt.reason not in GOOD_ENDS
        if fruitless > max_fruitless:
            yield f"I11: attempt {attempt.number} of {story.name} is number {fruitless} in a row without progress"


def _files(story: Story, data_dir: Path) -> Iterator[str]:
    """What is announced is there, whole; and the weights of a success are announced."""
    blobs = BlobStore(data_dir)
    for file in story.artifacts:
        try:
            content = blobs.path(file.sha256).read_bytes()
        except FileNotFoundError:
            yield f"I6: {file.name} of {story.name} has no bytes"
            continue
        if (len(content), hashlib.sha256(content).hexdigest()) != (file.bytes, file.sha256):
            yield f"I6: {file.name} of {story.name} is not what was announced"
    weights = {file.sha256 for file in story.artifacts if file.name == WEIGHTS}
    delivered = {story.job.result.sha256} if story.job.result is not None else set()
    if story.job.status == JobStatus.SUCCEEDED and weights != delivered:
        yield f"I6: {story.name} delivered {delivered} and announces {weights}"


def _metrics(story: Story) -> Iterator[str]:
    """Told once each, in order, and again only after a checkpoint that a later attempt went back to."""
    first_steps = {attempt.number: attempt.first_step for attempt in story.attempts}
    told: dict[int, int] = {}
    last: Counter[int] = Counter()
    for event in story.events:
        if event.type != "job.metric":
            continue
        step = event.data["step"]
        if step <= last[event.attempt]:
            yield f"I7: attempt {event.attempt} of {story.name} told of step {step} after step {last[event.attempt]}"
        since = range(told.get(step, event.attempt) + 1, event.attempt + 1)
        if step in told and not any(first_steps[attempt] < step for attempt in since):
            yield f"I7: {story.name} told of step {step} twice, in attempts {told[step]} and {event.attempt}"
        last[event.attempt], told[step] = step, event.attempt
    steps = {point.step for point in story.points}
    if not steps <= set(told):
        yield f"I7: {story.name} has points at steps {sorted(steps - set(told))} that no event told of"


def _numbered(story: Story) -> Iterator[str]:
    numbers = [event.id for event in story.events]
    if numbers != list(range(1, story.job.last_event_id + 1)):
        yield f"I8: the events of {story.name} are numbered {numbers}, the last one is {story.job.last_event_id}"


def _outcome(story: Story, expected: Mapping[str, Outcome]) -> Iterator[str]:
    """To the byte what an undisturbed run gives."""
    outcome = expected[str(story.job.name).partition("/")[0]]
    result = story.job.result
    assert result is not None
    if result.sha256 != outcome.sha256:
        yield f"I12: the weights of {story.name} have the digest {result.sha256}, undisturbed {outcome.sha256}"
    for name in ("test_loss", "test_accuracy", "weights", "epoch", "step"):
        if getattr(result, name) != getattr(outcome.result, name):
            yield f"I12: {name} of {story.name} is {getattr(result, name)}, undisturbed {outcome.result}"
    rows = {(point.key, point.epoch, point.step, point.value) for point in story.points if not point.timing}
    if rows != outcome.rows:
        yield f"I12: the metrics of {story.name} differ in {sorted(rows ^ outcome.rows, key=str)[:4]}"
