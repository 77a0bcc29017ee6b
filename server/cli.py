"""The `epochd` command.

Exit codes: 0 done · 1 the job failed or was cancelled · 2 bad input: usage, file, or a request that the server refused
· 3 the server is unreachable or cannot serve · 4 no such job or artifact · 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Column, Table

from server.client import (
    DEFAULT_URL,
    ApiError,
    Client,
    NoSuchArtifact,
    NotFound,
    Unavailable,
    Unreachable,
)
from server.progress import accuracy, follow
from server.schemas import Job

JOB_FAILED, BAD_INPUT, UNREACHABLE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 4, 130

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Url = Annotated[str, typer.Option("--url", envvar="EPOCHD_URL", help="Where the server is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it; one document per line.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job: job_…")]


@app.command()
def up(dev: Annotated[bool, typer.Option("--dev", help="Loopback only, no key.")] = False) -> None:
    """Run everything on this machine: queue, worker and API. Ctrl-C stops it."""
    try:
        from server.up import up as run_up  # noqa: PLC0415 - the client's installation lacks what it needs
        from worker.settings import Settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        _fail(BAD_INPUT, f"{error}; what `up` needs is installed with: pip install 'epochd[all]'")
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
    with _client(url) as client:
        job = client.submit(_read_spec(spec), name=name, priority=priority, tags=tag or ())
        if as_json:
            _print_json(job)
        else:
            out.print(job.id)
        if watch:
            _watch(client, job.id, as_json)


@app.command()
def watch(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show a job's progress until it ends."""
    with _client(url) as client:
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
    with _client(url) as client:
        for job, _ in zip(client.list(statuses=status or ()), range(limit), strict=False):
            if as_json:
                _print_json(job)
            else:
                share = f"{job.progress.fraction:.0%}" if job.progress else ""
                table.add_row(job.id, job.name or "", job.status, share, accuracy(job))
    if not as_json:
        out.print(table)


@app.command()
def show(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show one job."""
    with _client(url) as client:
        job = client.get(job_id)
    if as_json:
        _print_json(job)
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
    with _client(url) as client:
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
    with _client(url) as client:
        for point in client.metrics(job_id, keys=key or ()):
            if as_json:
                _print_json(point)
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
    with _client(url) as client:
        job = client.cancel(job_id, now=now)
    _say(job, "is cancelled" if job.terminal else "is being cancelled", as_json)


@app.command()
def pause(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Let a job rest; `resume` goes on with it."""
    with _client(url) as client:
        job = client.pause(job_id)
    _say(job, "is paused" if job.status == "paused" else "is being paused", as_json)


@app.command()
def resume(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Go on with a paused job."""
    with _client(url) as client:
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
    with _client(url) as client:
        job = client.retry(job_id, scratch=scratch)
    _say(job, f"is {job.status}", as_json)


@app.command("rm")
def remove(job_id: JobId, url: Url = DEFAULT_URL) -> None:
    """Delete a job that has ended, with all its files."""
    with _client(url) as client:
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
    with _client(url) as client:
        names = [name] if name else [artifact.name for artifact in client.artifacts(job_id)]
        if not names:
            _fail(NOT_FOUND, f"{job_id} has no artifacts yet")
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
            _print_json(job)
    else:
        job = follow(client, job_id, out)
    if job.status != "succeeded":
        raise typer.Exit(JOB_FAILED)


def _read_spec(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
        spec = json.loads(text)
    except (OSError, ValueError) as error:
        _fail(BAD_INPUT, f"{path}: {error}")
    if not isinstance(spec, dict):
        _fail(BAD_INPUT, f"{path}: expected a JSON object, got {type(spec).__name__}")
    return spec


@contextmanager
def _client(url: str) -> Iterator[Client]:
    """A client whose errors become a sentence and an exit code."""
    try:
        with Client(url) as client:
            yield client
    except Unreachable as error:
        _fail(UNREACHABLE, f"{error}\nIs the server running? Start it with `epochd up --dev`, or name it with --url.")
    except (NotFound, NoSuchArtifact) as error:
        _fail(NOT_FOUND, str(error))
    except Unavailable as error:
        _fail(UNREACHABLE, str(error))
    except ApiError as error:
        lines = [f"  {item['pointer'] or 'body'}: {item['message']}" for item in error.problem["errors"]]
        _fail(BAD_INPUT, "\n".join([error.problem["title"], *lines] if lines else [str(error)]))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _fail(code: int, message: str) -> NoReturn:
    err.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _say(job: Job, what: str, as_json: bool) -> None:
    if as_json:
        _print_json(job)
    else:
        out.print(f"{job.id} {what}")


def _print_json(answer: BaseModel) -> None:
    out.print(answer.model_dump_json(), soft_wrap=True, markup=False)


if __name__ == "__main__":
    app()
