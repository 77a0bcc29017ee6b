"""Determinism domains in claims: a job that has begun goes on only where its results stay the same to the byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, func, not_, or_, true

from worker.jobs import OnDomainChange
from worker.store.tables import jobs, workers

UNKNOWN: Mapping[str, str] = MappingProxyType({})
ABSENT_AFTER = timedelta(seconds=60)
"""A worker that was not seen for so long does not count as there."""

EXACTNESS_ENDED = (
    "no worker is there whose results would be the same to the byte, so the job goes on elsewhere, as "
    "on_domain_change: continue allows; from here on it differs from an undisturbed run"
)


def domain_of(determinism: Mapping[str, Any]) -> str:
    """What a trainer told of its determinism, without the threads: those belong to the job, not to the worker."""
    return json.dumps({name: value for name, value in determinism.items() if name != "threads"}, sort_keys=True)


def has_kernels(domain: str | None) -> bool:
    """Whether trainers in this domain use compiled kernels; in others they do not, whatever was compiled since."""
    return domain is not None and "native" in json.loads(domain)


def fits(device: str, threads: int, domains: Mapping[str, str], gpus: int = 1) -> ColumnElement[bool]:
    """SQL condition of the jobs that a worker may train.

    A worker with a GPU takes every job that asks for no more of them than its trainers see, one without takes those
    that do not ask for one. A job that has begun needs its own domain and as many threads as it had, unless no worker
    is there that has them, and the job may change.

    Args:
        device: `cuda` or `cpu`.
        threads: of each of the worker's trainers.
        domains: the worker's domain on each device.
        gpus: that each of the worker's trainers sees, if it has any.
    """
    wanted = ["auto", "cpu"] if device == "cpu" else ["auto", "cpu", "cuda"]
    exact = and_(jobs.c.domain.in_(list(domains.values())), jobs.c.threads <= threads)
    able = (
        workers.c.status == "active",
        workers.c.last_seen_at >= datetime.now(UTC) - ABSENT_AFTER,
        or_(workers.c.cpu_domain == jobs.c.domain, workers.c.cuda_domain == jobs.c.domain),
        workers.c.threads >= jobs.c.threads,
    )
    changes = and_(jobs.c.on_domain_change == OnDomainChange.CONTINUE, not_(exists().where(*able)))
    devices = func.coalesce(jobs.c.spec["training"]["devices"].as_integer(), 1)  # older specs have none
    on_cpu = or_(jobs.c.wanted_device == "cpu", and_(jobs.c.device == "cpu", exact))
    enough = true() if device == "cpu" else or_(on_cpu, devices <= gpus)
    return and_(jobs.c.wanted_device.in_(wanted), enough, or_(jobs.c.domain.is_(None), exact, changes))


def changes_domain(job: Row[Any], domains: Mapping[str, str]) -> bool:
    """Whether a job that has begun goes on in another domain than before when this worker trains it."""
    return job.domain is not None and job.domain not in domains.values()


def place(job: Row[Any], device: str, threads: int, domains: Mapping[str, str]) -> dict[str, Any]:
    """Where the worker trains a job that `fits`: the columns of the claim."""
    if job.domain is not None and not changes_domain(job, domains):
        return {"device": job.device, "threads": job.threads, "domain": job.domain}
    used = device if job.wanted_device == "auto" else job.wanted_device
    anew = job.threads is None or changes_domain(job, domains)
    return {"device": used, "threads": threads if anew else job.threads, "domain": domains.get(used)}
