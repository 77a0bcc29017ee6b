"""How long a page of jobs takes among 100,000, for every filter: `python -m benchmarks.lists [--postgresql]`.

About two minutes. Half of the jobs have the common tag, five the rare one; a fifth waits, two run. Every query is asked
for its first page and for one in the middle of its walk, with a key that sees all jobs and with one that owns a part.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import update

from benchmarks.alternation import table, write
from benchmarks.servers import api
from cnn.spec import TrainingSpec
from tests.postgresql import PostgreSQL
from tests.worker.many_jobs import START, fill
from worker.jobs import JobStatus
from worker.settings import Settings
from worker.store import keys
from worker.store.database import Database
from worker.store.tables import jobs

SPEC = TrainingSpec.model_validate_json(Path("examples/digits.json").read_text())
RESULT = {"test_loss": 0.1, "test_accuracy": 0.97, "weights": "best", "epoch": 10, "step": 500,
          "artifact": "model.safetensors", "sha256": "0" * 64}  # fmt: skip
ERROR = {"code": "diverged", "message": "the loss is not finite", "blame": "user", "retryable": False, "hint": "",
         "pointer": None, "log_tail": []}  # fmt: skip
EARLY, LATE = ((START + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ") for days in (20, 30))
ROUNDS = 30
QUERIES = {
    "all": "",
    "all, pages of 200": "limit=200",
    "status=queued": "status=queued",
    "status=running (2 jobs)": "status=running",
    "status=succeeded,failed": "status=succeeded,failed",
    "status=running,paused": "status=running,paused",
    "name": "name=n3",
    "name, status=running (none)": "name=n3&status=running",
    "tag of half": "tag=common",
    "tag of 1 %": "tag=u7",
    "tag of 5 jobs": "tag=rare",
    "tag of none": "tag=none",
    "two tags of no job together": "tag=common,odd",
    "tag of half, status=running": "tag=common&status=running",
    "tag of half, name": "tag=common&name=n2",
    "created in ten days": f"created_after={EARLY}&created_before={LATE}",
    "created in ten days, tag of 5 jobs": f"created_after={EARLY}&created_before={LATE}&tag=rare",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description="Time pages of jobs.")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--postgresql", action="store_true")
    arguments = parser.parse_args()
    name = "PostgreSQL" if arguments.postgresql else "SQLite"
    with tempfile.TemporaryDirectory(prefix="epochd-lists-") as folder, database_url(arguments.postgresql) as url:
        settings = Settings(data_dir=Path(folder, "data"), database_url=url, rate_limit=1_000_000)
        secret, own_secret = prepare(settings, arguments.jobs)
        with api(settings, secret) as server:
            rows = [[query, *measure(server.http, asked, own_secret)] for query, asked in QUERIES.items()]
            queue_everything(settings)
            longest = timed(server.http, "/v1/jobs")
    header = ("query", "first page p50", "p95", "middle p50", "p95", "own jobs p50", "p95")
    notes = (
        f"`python -m benchmarks.lists{' --postgresql' * arguments.postgresql}`: milliseconds over HTTP, {ROUNDS} "
        f"rounds, {arguments.jobs} jobs on {name}, pages of 50.",
        f"With all jobs waiting, where each answer tells places in that queue: p50 {longest[0]}, p95 {longest[1]}.",
    )
    write(f"lists-{name.lower()}", f"Pages of jobs on {name}", [table(header, rows)], notes)


@contextmanager
def database_url(postgresql: bool) -> Iterator[str | None]:
    """None for SQLite in the data folder."""
    if not postgresql:
        yield None
        return
    with ExitStack() as stack:
        server = PostgreSQL()
        stack.callback(server.remove)
        yield stack.enter_context(server.empty_database())


def prepare(settings: Settings, number: int) -> tuple[str, str]:
    """Store the jobs; the secrets of a key that sees them all and of one that owns a part of them."""
    with closing(Database(settings.resolved_database_url())) as database:
        database.migrate()
        with database.write() as c:
            _, secret = keys.create(c, name="all", scope="admin")
            owner, own_secret = keys.create(c, name="own", scope="submit")
        fill(database, SPEC, number, lambda index: anything(index, owner.id))
    tidy(settings)
    return secret, own_secret


def tidy(settings: Settings) -> None:
    """What PostgreSQL does by itself, minutes after so many rows were written."""
    if settings.database_url is not None:
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")


def queue_everything(settings: Settings) -> None:
    ended = {"finished_at": None, "result": None, "error": None, "phase": None}
    with closing(Database(settings.resolved_database_url())) as database, database.write() as c:
        c.execute(update(jobs).values(status=JobStatus.QUEUED, **ended))
    tidy(settings)


def anything(index: int, owner_id: str) -> dict[str, Any]:
    """What job number `index` is."""
    chance = random.Random(index)
    statuses = {"queued": 20, "succeeded": 60, "failed": 12, "cancelled": 7.5, "paused": 0.5}
    status = JobStatus(*chance.choices(list(statuses), list(statuses.values())))
    more: dict[str, Any] = {"finished_at": START} if status.terminal else {}
    if index % 50_000 == 7:
        status, more = JobStatus.RUNNING, {"phase": "training", "worker_id": "w-1", "attempt": 1, "token": 1}
    if status == JobStatus.SUCCEEDED:
        more |= {"result": RESULT, "device": "cpu", "threads": 1, "attempt": 1}
    if status == JobStatus.FAILED:
        more |= {"error": ERROR}
    common = "common" if index % 2 else "odd"
    return more | {
        "status": status,
        "tags": [common, f"u{index % 100}", *(["rare"] if index % 20_000 == 11 else [])],
        "name": f"n{index % 10}" if index % 5 else None,
        "priority": 0 if index % 50 else 5,
        "owner_id": owner_id if index % 7 == 0 else None,
    }


def measure(http: httpx.Client, asked: str, own_secret: str) -> list[str]:
    """Median and 95 % of the milliseconds of a first page, of one in the middle, and of the owner's first page."""
    path = f"/v1/jobs?{asked}"
    middle = f"{path}&cursor={cursor(http)}"
    own = {"Authorization": f"Bearer {own_secret}"}
    return [*timed(http, path), *timed(http, middle), *timed(http, path, own)]


def cursor(http: httpx.Client) -> str:
    """Of a job in the middle."""
    page = http.get("/v1/jobs", params={"limit": 1, "created_before": LATE}).raise_for_status().json()
    return str(page["data"][0]["id"])


def timed(http: httpx.Client, path: str, headers: dict[str, str] | None = None) -> list[str]:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        http.get(path, headers=headers).raise_for_status()
        times.append(1000 * (time.perf_counter() - begin))
    return [f"{statistics.median(times):.1f}", f"{sorted(times)[int(0.95 * (len(times) - 1))]:.1f}"]


if __name__ == "__main__":
    main()
