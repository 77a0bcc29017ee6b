"""The commands that ask something of a job."""

from __future__ import annotations

from typing import Annotated

import typer

from server.client import DEFAULT_URL
from server.console import AsJson, JobId, Url, connect, out, print_json
from server.schemas import Job


def cancel(
    job_id: JobId,
    now: Annotated[bool, typer.Option("--now", help="Kill its trainer instead of asking it to stop.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Cancel a job."""
    with connect(url) as client:
        job = client.cancel(job_id, now=now)
    _say(job, "is cancelled" if job.terminal else "is being cancelled", as_json)


def pause(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Let a job rest; `resume` goes on with it."""
    with connect(url) as client:
        job = client.pause(job_id)
    _say(job, "is paused" if job.status == "paused" else "is being paused", as_json)


def resume(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Go on with a paused job."""
    with connect(url) as client:
        job = client.resume(job_id)
    _say(job, f"is {job.status}", as_json)


def retry(
    job_id: JobId,
    scratch: Annotated[bool, typer.Option("--scratch", help="Not from its newest checkpoint.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Train a failed or cancelled job again."""
    with connect(url) as client:
        job = client.retry(job_id, scratch=scratch)
    _say(job, f"is {job.status}", as_json)


def remove(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Delete a job that has ended, with all its files."""
    with connect(url) as client:
        client.delete(job_id)
    if as_json:
        print_json({"id": job_id, "deleted": True})
    else:
        out.print(f"{job_id} is deleted")


def _say(job: Job, what: str, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        out.print(f"{job.id} {what}")
