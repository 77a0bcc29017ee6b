"""How late events arrive on many open streams: one event a second for each job, one stream for each.

python -m benchmarks.streams --streams 200 --seconds 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx

from cnn.spec import TrainingSpec
from worker.settings import Settings, child_environment
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


def write(database: Database, ids: list[str], seconds: float) -> None:
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
        await asyncio.to_thread(write, database, ids, seconds)
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return sorted(lags)


def wait_until_up(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{url}/healthz").raise_for_status()
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), redis_url="redis://127.0.0.1:1/0", port=port, auth="off")
        database = Database(settings.resolved_database_url())
        database.migrate()
        ids = make_jobs(database, options.streams)
        command = [sys.executable, "-m", "server"]
        with subprocess.Popen(command, env=child_environment(settings), stdout=subprocess.DEVNULL) as server:
            try:
                url = f"http://127.0.0.1:{port}"
                wait_until_up(url)
                lags = asyncio.run(measure(url, ids, database, options.seconds))
            finally:
                server.send_signal(signal.SIGTERM)
                _, _, usage = os.wait4(server.pid, 0)
                server.returncode = 0
        database.close()
    expected = int(options.seconds * options.streams)
    report(lags, expected, usage, options)


def report(lags: list[float], expected: int, usage: resource.struct_rusage, options: argparse.Namespace) -> None:
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    told = ", ".join(f"{name} {1000 * lags[int(share * (len(lags) - 1))]:.0f} ms" for name, share in shares.items())
    print(f"{options.streams} streams, {options.seconds:g} s: {len(lags)} of {expected} events arrived; lag {told}")
    print(f"server: {usage.ru_utime + usage.ru_stime:.1f} s of CPU, {usage.ru_maxrss / 1024:.0f} MB at most")


if __name__ == "__main__":
    main()
