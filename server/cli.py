"""The `epochd` command.

Exit codes: 0 done · 1 the job failed or was cancelled · 2 bad input: usage, file, or a request that the server refused
· 3 the server is unreachable or cannot serve · 4 no such job or artifact · 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from server.client import DEFAULT_URL, Client
from server.console import (
    API_KEY,
    BAD_INPUT,
    JOB_FAILED,
    NOT_FOUND,
    AsJson,
    Url,
    connect,
    fail,
    out,
    print_json,
)
from server.datasets_cli import app as datasets_app
from server.keys_cli import app as keys_app
from server.progress import accuracy, follow
from server.schemas import Job

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(keys_app, name="keys")
app.add_typer(datasets_app, name="dataset")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job: job_…")]


@app.callback()
def main(
    api_key: Annotated[
        str | None, typer.Option(envvar="EPOCHD_API_KEY", help="The key to ask with, where the server asks for one.")
    ] = None,
) -> None:
    API_KEY.set(api_key)


@app.command()
def up(dev: Annotated[bool, typer.Option("--dev", help="No keys, and loopback only.")] = False) -> None:
    """Run everything on this machine: queue, worker and API. Ctrl-C stops it."""
    try:
        from server.up import up as run_up  # noqa: PLC0415 - the client's installation lacks what it needs
        from worker.settings import Settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(BAD_INPUT, f"{error}; what `up` needs is installed with: pip install 'epochd[all]'")
    raise typer.Exit(run_up(Settings(), dev))


@app.command()
def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="File with the spec as JSON; - reads standard input.")],
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    priority: Annotated[int, typer.Option(help="Larger ones are trained first.")] = 0,
    tag: Annotated[list[str] | None, typer.Option(help="A label; may be given several times.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show its progress until it ends.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job."""
    with connect(url) as client:
        job = client.submit(_read_spec(spec), name=name, priority=priority, tags=tag or ())
        if as_json:
            print_json(job)
        else:
            out.print(job.id)
        if watch:
            _watch(client, job.id, as_json)


@app.command()
def watch(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show a job's progress until it ends."""
    with connect(url) as client:
        _watch(client, job_id, as_json)


@app.command("ls")
def list_jobs(
    status: Annotated[
        list[str] | None, typer.Option(help="Only jobs of this status; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    table = Table(Column("id", no_wrap=True), "name", "status", "progress", "accuracy", box=None)
    with connect(url) as client:
        for job, _ in zip(client.list(statuses=status or ()), range(limit), strict=False):
            if as_json:
                print_json(job)
            else:
                share = f"{job.progress.fraction:.0%}" if job.progress else ""
                table.add_row(job.id, job.name or "", job.status, share, accuracy(job))
    if not as_json:
        out.print(table)


@app.command()
def show(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show one job."""
    with connect(url) as client:
        job = client.get(job_id)
    if as_json:
        print_json(job)
    else:
        out.print_json(job.model_dump_json(exclude={"spec", "links"}))


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Print a job's log."""
    with connect(url) as client:
        texts = client.follow_logs(job_id) if follow else iter([client.logs(job_id, tail=tail)])
        for text in texts:
            sys.stdout.write(
                "".join(json.dumps({"line": line}) + "\n" for line in text.splitlines()) if as_json else text
            )
            sys.stdout.flush()


@app.command()
def metrics(
    job_id: JobId,
    key: Annotated[list[str] | None, typer.Option(help="Only this series; may be given several times.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Print a job's metric series."""
    table = Table("epoch", "step", "key", "value", box=None)
    with connect(url) as client:
        for point in client.metrics(job_id, keys=key or ()):
            if as_json:
                print_json(point)
            else:
                value = "not finite" if point.value is None else f"{point.value:.6g}"
                table.add_row(str(point.epoch), str(point.step), point.key, value)
    if not as_json:
        out.print(table)


@app.command()
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


@app.command()
def pause(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Let a job rest; `resume` goes on with it."""
    with connect(url) as client:
        job = client.pause(job_id)
    _say(job, "is paused" if job.status == "paused" else "is being paused", as_json)


@app.command()
def resume(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Go on with a paused job."""
    with connect(url) as client:
        job = client.resume(job_id)
    _say(job, f"is {job.status}", as_json)


@app.command()
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


@app.command("rm")
def remove(job_id: JobId, url: Url = DEFAULT_URL) -> None:
    """Delete a job that has ended, with all its files."""
    with connect(url) as client:
        client.delete(job_id)
    out.print(f"{job_id} is deleted")


@app.command()
def download(
    job_id: JobId,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the artifact; else all.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File or folder to write.")] = Path(),
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Download artifacts and verify their SHA-256."""
    with connect(url) as client:
        names = [name] if name else [artifact.name for artifact in client.artifacts(job_id)]
        if not names:
            fail(NOT_FOUND, f"{job_id} has no artifacts yet")
        for one in names:
            target = output / one if output.is_dir() or name is None else output
            target.parent.mkdir(parents=True, exist_ok=True)
            artifact = client.download(job_id, one, target)
            if as_json:
                out.print(json.dumps({**artifact.model_dump(mode="json"), "path": str(target)}), soft_wrap=True)
            else:
                out.print(f"{target}  {artifact.bytes} bytes  sha256 {artifact.sha256}", soft_wrap=True)


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    if as_json:
        job = client.get(job_id)
        for job in client.wait(job_id):
            print_json(job)
    else:
        job = follow(client, job_id, out)
    if job.status != "succeeded":
        raise typer.Exit(JOB_FAILED)


def _read_spec(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
        spec = json.loads(text)
    except (OSError, ValueError) as error:
        fail(BAD_INPUT, f"{path}: {error}")
    if not isinstance(spec, dict):
        fail(BAD_INPUT, f"{path}: expected a JSON object, got {type(spec).__name__}")
    return spec


def _say(job: Job, what: str, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        out.print(f"{job.id} {what}")


if __name__ == "__main__":
    app()
