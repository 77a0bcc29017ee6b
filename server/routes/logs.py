"""A job's log: what its trainers printed, all attempts in one text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import Field

from server.auth import CallerOf
from server.files import blocks, file_response, tail_offset
from server.openapi import body_of, problems
from server.queries import QueryParameters
from server.representation import find
from server.services import ServicesOf
from worker.logs import log_path

router = APIRouter(prefix="/v1/jobs/{job_id}/logs", tags=["logs"])

MEDIA_TYPE = "text/plain; charset=utf-8"


class LogsQuery(QueryParameters):
    tail: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Only the last lines; without `Range`."""


@router.head("", operation_id="head_logs", response_class=PlainTextResponse, responses=problems(404, 416, 422, 503))
@router.get("", response_class=PlainTextResponse, responses=body_of("text/plain") | problems(404, 416, 422, 503))
def get_logs(
    job_id: str, query: Annotated[LogsQuery, Query()], request: Request, services: ServicesOf, caller: CallerOf
) -> Response:
    """The log as text; with `Range: bytes=<size>-` only what came since. 416 means that nothing did."""
    with services.database.read() as connection:
        find(connection, job_id, caller)
    path = log_path(services.settings.data_dir, job_id)
    headers = {"Cache-Control": "no-store"}
    if not path.exists():  # nothing has been printed yet: the job waits
        return Response(status_code=200, headers=headers, media_type=MEDIA_TYPE)
    if query.tail is not None:
        size = path.stat().st_size
        start = tail_offset(path, size, query.tail)
        headers["Content-Length"] = str(size - start)
        return StreamingResponse(blocks(path, start, size), 200, headers, MEDIA_TYPE)
    return file_response(request, path, media_type=MEDIA_TYPE, etag=None, headers=headers)
