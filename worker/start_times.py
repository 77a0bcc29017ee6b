"""When each waiting job is expected to start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from worker.durations import DurationModel
from worker.forecast import can_train, learned, work_of
from worker.jobs import Job
from worker.store import history, workers
from worker.store.history import Underway
from worker.store.workers import Worker

MAX_WAITING = 100
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class _Slot:
    worker: Worker
    model: DurationModel
    free_at: datetime


@dataclass(frozen=True)
class StartTimes:
    """The start of each waiting job by its id, and of one that would come last by the one device that it wants.

    What no worker can take is left out.
    """

    of_jobs: Mapping[str, datetime]
    of_last: Mapping[str, datetime]

    def of(self, job: Job) -> datetime | None:
        """When the job will start, which may have come after these times were computed."""
        training = job.spec["training"]
        of_last = self.of_last.get(training["device"]) if training.get("devices", 1) == 1 else None
        return self.of_jobs.get(job.id, of_last)


NEVER = StartTimes({}, {})


def start_times(c: Connection, *, seconds: float) -> StartTimes:
    """Each waiting job takes the slot that is free first, in the order of claims, for as long as such jobs have taken.

    Args:
        seconds: workers that were seen in this time count as there.
    """
    now = datetime.now(UTC)
    running: dict[str | None, list[Underway]] = defaultdict(list)
    for job in history.running(c):
        running[job.worker_id].append(job)
    slots = [
        slot for worker in workers.recent(c, seconds=seconds) for slot in _slots(c, worker, running[worker.id], now)
    ]
    waiting = history.waiting(c, limit=MAX_WAITING + 1)
    times = {}
    for job in waiting[:MAX_WAITING]:
        if slot := _first_free(slots, job.wanted_device, job.devices):
            times[job.id] = slot.free_at
            slot.free_at += _duration(job, slot.model, slot.worker.device)
    last = {device: _first_free(slots, device, 1) for device in DEVICES} if len(waiting) <= MAX_WAITING else {}
    return StartTimes(times, {device: slot.free_at for device, slot in last.items() if slot is not None})


def _first_free(slots: list[_Slot], wanted_device: str, devices: int) -> _Slot | None:
    able = (slot for slot in slots if can_train(slot.worker, wanted_device, devices))
    return min(able, key=lambda slot: slot.free_at, default=None)


def _slots(c: Connection, worker: Worker, running: list[Underway], now: datetime) -> list[_Slot]:
    """The worker's slots, each with the time at which its job is due."""
    model = learned(c, worker.device, worker.threads)
    due = [max(now, job.eta_at or now + _duration(job, model, worker.device)) for job in running[: worker.slots]]
    return [_Slot(worker, model, free_at) for free_at in (*due, *[now] * (worker.slots - len(due)))]


def _duration(job: Underway, model: DurationModel, device: str) -> timedelta:
    amount = work_of(job.spec, device)
    return timedelta(seconds=model.estimate(amount).seconds if amount is not None else 0.0)
