"""A job's metric series: pages of JSON, or everything as CSV or NDJSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from server import schemas
from server.auth import CallerOf
from server.decimation import decimate
from server.openapi import Responses, problems
from server.queries import Count, Limit, QueryParameters, Several, Text
from server.representation import find
from server.services import Services, ServicesOf
from worker.store import metrics
from worker.store.metrics import Cursor, Point

router = APIRouter(prefix="/v1/jobs/{job_id}/metrics", tags=["metrics"])

COLUMNS = ("key", "epoch", "step", "value", "at", "timing")
BATCH = 1000
TABLES: Responses = {200: {"content": {"text/csv": {}, "application/x-ndjson": {}}}}
_CURSOR = re.compile(r"(\d{1,18}):([^\x00-\x1f\x7f]{1,200})")


class MetricsQuery(QueryParameters):
    keys: Several[Text] = ()
    """Only these series, separated by commas."""
    from_step: Count | None = None
    """Only points at or after this step."""
    cursor: Annotated[str, Field(pattern=f"^{_CURSOR.pattern}$")] | None = None
    """`next_cursor` of the page before."""
    limit: Limit = 200
    max_points: Annotated[int, Field(ge=4, le=10_000)] | None = None
    """All of each series in one page, thinned to about this many points; minima and maxima are kept."""
    format: Literal["json", "csv", "ndjson"] = "json"
    """`csv` and `ndjson` give every point at once; `limit` is for JSON."""


@router.get("", response_model=schemas.MetricPage, responses=TABLES | problems(404, 422, 503))
def list_metrics(
    job_id: str, query: Annotated[MetricsQuery, Query()], services: ServicesOf, caller: CallerOf
) -> Response | schemas.MetricPage:
    """The points of a job's series, by step."""
    with services.database.read() as connection:
        find(connection, job_id, caller)
        if query.format == "json" and query.max_points is None:
            found = metrics.points(
                connection,
                job_id,
                keys=query.keys,
                from_step=query.from_step,
                after=_cursor(query.cursor),
                limit=query.limit + 1,
            )
            return _page(found, query.limit)
    points = _all_points(services, job_id, query)
    if query.format == "csv":
        return StreamingResponse(_csv(points), media_type="text/csv; charset=utf-8")
    if query.format == "ndjson":
        return StreamingResponse(_ndjson(points), media_type="application/x-ndjson")
    assert query.max_points is not None
    thinned = decimate(list(points), query.max_points)
    return schemas.MetricPage(data=tuple(map(_represent, thinned)), next_cursor=None, has_more=False)


def _all_points(services: Services, job_id: str, query: MetricsQuery) -> Iterator[Point]:
    after = _cursor(query.cursor)
    while True:
        with services.database.read() as connection:
            batch = metrics.points(
                connection, job_id, keys=query.keys, from_step=query.from_step, after=after, limit=BATCH
            )
        yield from batch
        if len(batch) < BATCH:
            return
        after = (batch[-1].step, batch[-1].key)


def _page(found: Sequence[Point], limit: int) -> schemas.MetricPage:
    points, has_more = found[:limit], len(found) > limit
    next_cursor = f"{points[-1].step}:{points[-1].key}" if has_more else None
    return schemas.MetricPage(data=tuple(map(_represent, points)), next_cursor=next_cursor, has_more=has_more)


def _represent(point: Point) -> schemas.MetricPoint:
    return schemas.MetricPoint.model_validate(point)


def _cursor(text: str | None) -> Cursor | None:
    found = _CURSOR.fullmatch(text) if text else None
    return (int(found[1]), found[2]) if found else None


def _csv(points: Iterator[Point]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points:
        row = _represent(point).model_dump(mode="json")
        writer.writerow(row[column] for column in COLUMNS)
        if line.tell() > 2**16:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
    yield line.getvalue()


def _ndjson(points: Iterator[Point]) -> Iterator[str]:
    for point in points:
        yield _represent(point).model_dump_json() + "\n"
