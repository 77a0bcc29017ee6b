"""The `epochd` command."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from server.actions_cli import cancel, pause, remove, resume, retry
from server.client import DEFAULT_URL, Client
from server.client.calls import OnDomainChange, OnDuplicate
from server.compare_cli import compare
from server.console import (
    API_KEY,
    BAD_INPUT,
    EXIT_CODES,
    FAILED,
    NOT_FOUND,
    AsJson,
    JobId,
    SpecFile,
    Url,
    connect,
    ending_signals,
    fail,
    out,
    print_json,
    read_spec,
)
from server.datasets_cli import app as datasets_app
from server.keys_cli import app as keys_app
from server.plan_cli import plan
from server.predict_cli import predict
from server.progress import accuracy, follow
from server.webhooks_cli import app as webhooks_app

HELP = "Train networks from the command line.\n\nExit codes: " + " · ".join(
    f"{code} {meaning}" for code, meaning in EXIT_CODES.items()
)

app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, pretty_exceptions_enable=False)
app.add_typer(keys_app, name="keys")
app.add_typer(datasets_app, name="dataset")
app.add_typer(webhooks_app, name="webhooks")
app.command()(plan)
app.command()(compare)
app.command()(predict)
for command in (cancel, pause, resume, retry):
    app.command()(command)
app.command("rm")(remove)


@app.callback()
def main(
    api_key: Annotated[
        str | None, typer.Option(envvar="EPOCHD_API_KEY", help="The key to ask with, where the server asks for one.")
    ] = None,
) -> None:
    API_KEY.set(api_key)


@app.command()
def up(dev: Annotated[bool, typer.Option("--dev", help="No keys, and loopback only.")] = False) -> None:
    """Run everything on this machine: queue, worker and API. Ctrl-C or SIGTERM ends it, with exit code 0."""
    # Before the imports, which take a while: until they are done there is nothing to put in order.
    for number in ending_signals():
        signal.signal(number, lambda *_: os._exit(0))
    try:
        from server.up import up as run_up  # noqa: PLC0415 - the client's installation lacks what it needs
        from worker.settings import Settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(BAD_INPUT, f"{error}; what `up` needs is installed with: pip install 'epochd[all]'")
    raise typer.Exit(run_up(Settings(), dev))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look for what is wrong with the installation on this machine, and say how to mend it."""
    try:
        from server.doctor import examine  # noqa: PLC0415 - the client's installation lacks what it needs
        from worker.settings import Settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(BAD_INPUT, f"{error}; what `doctor` needs is installed with: pip install 'epochd[all]'")
    findings = []
    for finding in examine(Settings()):
        findings.append(finding)
        if as_json:
            print_json(finding)
        else:
            out.print(finding.text(), markup=False, soft_wrap=True)
    raise typer.Exit(FAILED if any(finding.status == "fail" for finding in findings) else 0)


@app.command()
def submit(
    spec: SpecFile,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    priority: Annotated[int, typer.Option(help="Larger ones are trained first.")] = 0,
    tag: Annotated[list[str] | None, typer.Option(help="A label; may be given several times.")] = None,
    on_duplicate: Annotated[
        OnDuplicate, typer.Option(help="What to do where a job of the same spec and images has succeeded or still can.")
    ] = "create",
    on_domain_change: Annotated[
        OnDomainChange, typer.Option(help="What to do where no worker is left whose bytes would be the same.")
    ] = "wait",
    max_runtime: Annotated[
        int | None, typer.Option(min=1, metavar="SECONDS", help="How long its attempts may run in total.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show its progress until it ends.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job."""
    with connect(url) as client:
        job = client.submit(
            read_spec(spec),
            name=name,
            priority=priority,
            tags=tag or (),
            on_duplicate=on_duplicate,
            on_domain_change=on_domain_change,
            max_runtime_seconds=max_runtime,
        )
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
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only jobs with this tag; may be given several times.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    table = Table(Column("id", no_wrap=True), "name", "status", "progress", "accuracy", box=None)
    with connect(url) as client:
        for job, _ in zip(client.list(statuses=status or (), name=name, tags=tag or ()), range(limit), strict=False):
            if as_json:
                print_json(job)
            else:
                share = f"{job.progress.fraction:.0%}" if job.progress else ""
                table.add_row(job.id, escape(job.name or ""), job.status, share, accuracy(job))
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
        for text in _json_lines(texts) if as_json else texts:
            sys.stdout.write(text)
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
def workers(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the workers that were seen within a day."""
    table = Table(Column("id", no_wrap=True), "host", "status", "device", "slots", "threads", "trains", box=None)
    with connect(url) as client:
        for worker in client.workers():
            if as_json:
                print_json(worker)
                continue
            sizes = (str(worker.slots), str(worker.threads), str(worker.num_jobs))
            table.add_row(worker.id, escape(worker.host), worker.status, worker.device, *sizes)
    if not as_json:
        out.print(table)


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
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                artifact = client.download(job_id, one, target)
            except OSError as error:
                fail(BAD_INPUT, f"{target}: {error.strerror or error}; name another place with --output")
            if as_json:
                print_json({**artifact.model_dump(mode="json"), "path": str(target)})
            else:
                line = f"{target}  {artifact.bytes} bytes  sha256 {artifact.sha256}"
                out.print(line, markup=False, soft_wrap=True)


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    if as_json:
        job = client.get(job_id)
        for job in client.wait(job_id):
            print_json(job)
    else:
        job = follow(client, job_id, out)
    if job.status != "succeeded":
        raise typer.Exit(FAILED)


def _json_lines(texts: Iterable[str]) -> Iterator[str]:
    """A document for every whole line of a text that comes in pieces."""
    rest = ""
    for text in texts:
        *lines, rest = (rest + text).split("\n")
        yield from (json.dumps({"line": line}) + "\n" for line in lines)
    if rest:
        yield json.dumps({"line": rest}) + "\n"


if __name__ == "__main__":
    app()
