"""How late events arrive on many open streams, one for each job: `python -m benchmarks.streams`, half a minute."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx

from benchmarks.alternation import table, write
from benchmarks.servers import api
from cnn.spec import TrainingSpec
from worker.settings import Settings
from worker.store import attempts, events, jobs
from worker.store.database import Database

SPEC = TrainingSpec.model_validate_json(Path("examples/digits.json").read_text())


def make_jobs(database: Database, count: int) -> list[str]:
    """Running jobs, as a worker makes them."""
    with database.write() as c:
        ids = [jobs.create(c, spec=SPEC, name=None).id for _ in range(count)]
        for job_id in ids:
            attempts.claim(c, worker_id="w-1", device="cpu", job_id=job_id)
    return ids


def append_events(database: Database, ids: list[str], seconds: float) -> None:
    """One event a second for each job, spread over the second as the jobs of many workers are."""
    begun = time.monotonic()
    for index in range(int(seconds * len(ids))):
        time.sleep(max(0.0, begun + index / len(ids) - time.monotonic()))
        with database.write() as c:
            events.append(c, ids[index % len(ids)], "job.progress", {"step": index}, attempt=1)


async def times(http: httpx.AsyncClient, job_id: str) -> AsyncIterator[float]:
    """Seconds from each event's time to its arrival."""
    headers = {"Accept": "text/event-stream"}
    async with http.stream("GET", f"/v1/jobs/{job_id}/events?types=job.progress", headers=headers) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                at = datetime.fromisoformat(json.loads(line[6:])["at"])
                yield (datetime.now(UTC) - at).total_seconds()


async def measure(url: str, ids: list[str], database: Database, seconds: float) -> list[float]:
    lags: list[float] = []

    async def collect(job_id: str) -> None:
        async for lag in times(http, job_id):
            lags.append(lag)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        tasks = [asyncio.create_task(collect(job_id)) for job_id in ids]
        await asyncio.sleep(2)  # until all streams are open
        await asyncio.to_thread(append_events, database, ids, seconds)
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return sorted(lags)


def cpu_seconds(pid: int) -> float:
    """Of user and system time, since the process began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description="Time events on open streams.")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epochd-streams-") as folder:
        settings = Settings(data_dir=Path(folder, "data"), auth="off")
        settings.data_dir.mkdir()
        with closing(Database(settings.resolved_database_url())) as database:
            database.migrate()
            ids = make_jobs(database, options.streams)
            with api(settings) as server:
                lags = asyncio.run(measure(str(server.http.base_url), ids, database, options.seconds))
                memory, cpu = server.megabytes()[1], cpu_seconds(server.pid)
    times = [f"{1000 * lags[int(share * (len(lags) - 1))]:.0f}" for share in (0.5, 0.99, 1)]
    row = [str(options.streams), f"{len(lags)} of {options.seconds * options.streams:.0f}", *times]
    header = (
        "streams",
        "events that arrived",
        "lag p50, ms",
        "p99",
        "longest",
        "CPU of the API, s",
        "its private memory, MB",
    )
    asked = f"--streams {options.streams} --seconds {options.seconds:g}"
    note = f"`python -m benchmarks.streams {asked}`: an event a second on each stream; CPU and memory are the API's."
    write("streams", "Lag of open event streams", [table(header, [[*row, f"{cpu:.1f}", f"{memory:.0f}"]])], [note])


if __name__ == "__main__":
    main()
