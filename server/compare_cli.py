"""`epochd compare`: what differs between jobs, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.markup import escape
from rich.table import Column, Table

from server.client import DEFAULT_URL
from server.console import BAD_INPUT, AsJson, Url, connect, fail, out, print_json
from server.schemas import Job

ABSENT = "–"


def compare(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB…", help="Ids of two jobs or more: job_…")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show only where specs differ, and the newest metrics."""
    if len(set(job_ids)) < 2:
        fail(BAD_INPUT, f"expected the ids of two jobs or more, got {', '.join(job_ids)}")
    with connect(url) as client:
        jobs = [client.get(job_id) for job_id in dict.fromkeys(job_ids)]
    changed = different([dict(leaves(job.spec)) for job in jobs])
    scores = [final_metrics(job) for job in jobs]
    if as_json:
        print_json(_document(jobs, changed, scores))
    else:
        out.print(_table(jobs, changed, scores))


def leaves(value: JsonValue, pointer: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Every value that is no object and no array, by its JSON Pointer; empty ones count as values."""
    if isinstance(value, dict | list) and value:
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            name = str(key).replace("~", "~0").replace("/", "~1")
            yield from leaves(child, f"{pointer}/{name}")
    else:
        yield pointer, value


def different(specs: Sequence[Mapping[str, JsonValue]]) -> dict[str, list[JsonValue | None]]:
    """The pointers at which not all are equal, each with the value in every spec; None where a spec lacks it."""
    pointers = dict.fromkeys(pointer for spec in specs for pointer in spec)
    rows = {pointer: [spec.get(pointer) for spec in specs] for pointer in pointers}
    return {pointer: row for pointer, row in rows.items() if any(value != row[0] for value in row)}


def final_metrics(job: Job) -> dict[str, float | None]:
    """The newest value of every series, and the test split's where the job has succeeded."""
    result = job.result
    tested = {} if result is None else {"test_loss": result.test_loss, "test_accuracy": result.test_accuracy}
    return {**job.latest_metrics, **tested}


def _document(
    jobs: Sequence[Job], changed: Mapping[str, list[JsonValue | None]], scores: Sequence[Mapping[str, float | None]]
) -> dict[str, JsonValue]:
    return {
        "jobs": [{"id": job.id, "name": job.name, "status": job.status} for job in jobs],
        "different": {pointer: list(values) for pointer, values in changed.items()},
        "metrics": {key: [each.get(key) for each in scores] for key in _keys(scores)},
    }


def _table(
    jobs: Sequence[Job], changed: Mapping[str, list[JsonValue | None]], scores: Sequence[Mapping[str, float | None]]
) -> Table:
    table = Table("", *(Column(job.id, overflow="fold") for job in jobs), box=None)
    table.add_row("name", *(escape(job.name or ABSENT) for job in jobs))
    table.add_row("status", *(job.status for job in jobs))
    for pointer, values in changed.items():
        table.add_row(escape(pointer), *(ABSENT if value is None else escape(json.dumps(value)) for value in values))
    for key in _keys(scores):
        table.add_row(key, *(_number(each.get(key)) for each in scores))
    return table


def _keys(scores: Sequence[Mapping[str, float | None]]) -> list[str]:
    return sorted({key for each in scores for key in each})


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.6g}"
