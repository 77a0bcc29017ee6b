"""When a job would start and how long it would take, were it submitted now."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from pydantic import ValidationError
from sqlalchemy import Connection

from cnn.costs import Work, work
from cnn.spec import TrainingSpec
from worker.durations import DurationModel, Estimate, Past, learn
from worker.store import history, workers
from worker.store.workers import Worker

NOWHERE = ("cpu", 1)
"""Device and threads of the estimate where no worker has ever been."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is expected on workers with this device and so many threads for each job.

    `start_at` is None when no worker is there that could take the job.
    """

    device: str
    threads: int
    num_runs: int
    """Finished jobs that the estimate was learned from."""
    duration: Estimate
    start_at: datetime | None


def forecast(c: Connection, spec: TrainingSpec, *, seconds: float) -> Forecast:
    """For a new job of priority 0; workers that were seen in the last `seconds` count as there."""
    training = spec.training
    present = workers.recent(c, seconds=seconds)
    able = [worker for worker in present if can_train(worker, training.device, training.devices)]
    device, threads = (able[0].device, able[0].threads) if able else history.newest_kind(c) or NOWHERE
    if training.device == "cpu":
        device = "cpu"
    model = learned(c, device, threads)
    return Forecast(
        device=device,
        threads=threads,
        num_runs=model.num_runs,
        duration=model.estimate(work(spec, device=device), _shortest(spec, device)),
        start_at=_start_at(history.ahead(c), sum(worker.slots for worker in able), model, device),
    )


def learned(c: Connection, device: str, threads: int) -> DurationModel:
    """The durations of jobs on a device with so many threads."""
    runs = history.finished_runs(c, device=device, threads=threads)
    known = [(work_of(run.spec, device, run.epochs), run.seconds) for run in runs]
    return learn(tuple(Past(work, seconds) for work, seconds in known if work is not None))


def can_train(worker: Worker, wanted: str, devices: int) -> bool:
    """Whether the worker takes jobs that want so many devices of this kind, as `worker.store.domains.fits` has it."""
    if wanted == "cpu" or worker.device == "cpu":
        return wanted != "cuda"
    return devices <= worker.gpus_per_slot


def _shortest(spec: TrainingSpec, device: str) -> Work | None:
    """The work up to the first epoch after which early stopping may end the run."""
    stopping = spec.early_stopping
    return work(spec, min(spec.training.epochs, stopping.patience + 1), device=device) if stopping else None


@lru_cache(maxsize=1024)
def work_of(spec: str, device: str, epochs: int | None = None) -> Work | None:
    """None for the stored spec of an older version that this one would refuse."""
    try:
        return work(TrainingSpec.model_validate_json(spec), epochs, device=device)
    except ValidationError:
        return None


def _start_at(ahead: Sequence[history.Ahead], slots: int, model: DurationModel, device: str) -> datetime | None:
    """When a slot becomes free, each job ahead taking the first one that is."""
    if not slots:
        return None
    now = datetime.now(UTC)
    free = [now] * slots
    for job in ahead:
        amount = work_of(job.spec, device)
        seconds = model.estimate(amount).seconds if amount is not None else 0.0
        due = job.eta_at if job.is_running and job.eta_at else max(now, free[0]) + timedelta(seconds=seconds)
        heapq.heapreplace(free, max(now, due))
    return free[0]
