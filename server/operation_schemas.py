"""What the API answers about itself and its workers."""

from __future__ import annotations

from datetime import datetime

from server.schemas import Answer, Page


class Worker(Answer):
    """A worker that was seen within a day."""

    id: str
    host: str
    device: str
    """`cuda` or `cpu`."""
    slots: int
    """Jobs that it trains at once."""
    threads: int
    """CPU threads of each trainer."""
    status: str
    """`active`, `draining`, `stopped`, or `lost` when it fell silent."""
    jobs: tuple[str, ...]
    """What it trains, of the jobs that you see."""
    num_jobs: int
    """All that it trains."""
    started_at: datetime
    last_seen_at: datetime


class WorkerPage(Page[Worker]):
    """Workers, those that came last first."""


class Queue(Answer):
    """Jobs that wait or run, of all keys."""

    name: str
    queued: int
    claimable: int
    """Queued jobs that neither a backoff nor a quota holds back."""
    running: int
    paused: int
    oldest_queued_at: datetime | None
    """Since when the job waits that has waited longest."""
    slots: int
    """Jobs that the workers that are there can train at once."""
    bells: int | None
    """Messages that wait for a worker; null when the broker does not answer."""


class QueuePage(Page[Queue]):
    """There is one queue."""


class Health(Answer):
    status: str


class Check(Answer):
    ok: bool
    detail: str


class Readiness(Answer):
    status: str
    checks: dict[str, Check]


class Version(Answer):
    version: str
    """Of the software."""
    api: str
    """Of this contract: the first part of the paths."""
