"""What operators ask of the store: how many jobs there are of each status, who runs what, and what is stuck."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from worker.jobs import JobStatus
from worker.store import webhooks as webhook_store
from worker.store.claims import claimable
from worker.store.deliveries import DeliveryStatus
from worker.store.domains import fits
from worker.store.tables import jobs
from worker.store.webhook_tables import deliveries, webhooks
from worker.store.workers import Worker


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """Who trains what, and for whom."""

    id: str
    owner_id: str | None
    worker_id: str


def num_jobs(c: Connection) -> dict[JobStatus, int]:
    """How many jobs there are of each status, also of those that no job has."""
    rows = c.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status))
    return dict.fromkeys(JobStatus, 0) | {JobStatus(status): int(count) for status, count in rows}


def num_claimable(c: Connection) -> int:
    """Queued jobs that are held back neither by a backoff nor by a quota."""
    return int(c.execute(select(func.count()).select_from(jobs).where(claimable())).scalar_one())


def oldest_queued_at(c: Connection) -> datetime | None:
    """Since when the queued job waits that has waited longest."""
    found: datetime | None = c.execute(
        select(func.min(jobs.c.queued_at)).where(jobs.c.status == JobStatus.QUEUED)
    ).scalar_one()
    return found


def num_deliveries(c: Connection) -> dict[DeliveryStatus, int]:
    """How many deliveries to webhooks there are of each status; finished ones are kept for `deliveries.KEPT`."""
    rows = c.execute(select(deliveries.c.status, func.count()).group_by(deliveries.c.status))
    return dict.fromkeys(DeliveryStatus, 0) | {DeliveryStatus(status): int(count) for status, count in rows}


def oldest_delivery_at(c: Connection) -> datetime | None:
    """Since when the delivery waits that has waited longest, with all of its attempts, of webhooks that receive any."""
    # By the column of the index: those that wait are those that are due some day.
    query = select(func.min(deliveries.c.created_at)).where(deliveries.c.due_at.is_not(None))
    query = query.join(webhooks, webhooks.c.id == deliveries.c.webhook_id).where(webhook_store.receives())
    found: datetime | None = c.execute(query).scalar_one()
    return found


def running(c: Connection) -> dict[str, list[RunningJob]]:
    """The running jobs by the worker that trains them."""
    query = select(jobs.c.id, jobs.c.owner_id, jobs.c.worker_id).where(jobs.c.status == JobStatus.RUNNING)
    found: dict[str, list[RunningJob]] = defaultdict(list)
    for row in c.execute(query.order_by(jobs.c.id)):
        found[row.worker_id].append(RunningJob(**row._asdict()))
    return found


def passed_over(c: Connection, worker: Worker, *, seconds: float) -> bool:
    """Whether a job that the worker could train has waited for so long."""
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    domains = {"cpu": worker.cpu_domain, "cuda": worker.cuda_domain}
    known = {device: name for device, name in domains.items() if name}
    fitting = fits(worker.device, worker.threads, known, worker.gpus_per_slot)
    held_until = func.coalesce(jobs.c.not_before, jobs.c.queued_at)
    waiting = select(jobs.c.id).where(claimable(), fitting, jobs.c.queued_at < since, held_until < since)
    return c.execute(waiting.limit(1)).one_or_none() is not None
