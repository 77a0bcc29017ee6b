"""The one place that makes `application/problem+json` (RFC 9457) of errors."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import JsonValue, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from server.errors import (
    Conflict,
    InvalidRequest,
    JobNotFound,
    NotFound,
    ProblemError,
    QuotaUsedUp,
    TooManyRequests,
    Unavailable,
)
from server.places import Schema
from server.schemas import Problem
from server.validation import error_items
from server.wording import quoted
from worker.artifacts import BlobsInUse
from worker.jobs import InvalidTransition, allowed_actions
from worker.jobs import JobNotFound as UnknownJob
from worker.store.database import DatabaseUnavailable
from worker.store.quotas import QuotaExceeded

MEDIA_TYPE = "application/problem+json"
logger = logging.getLogger(__name__)


def problem_of(scope: Scope, error: HTTPException) -> dict[str, Any]:
    """The `Problem` that an error is, with the further members of its kind."""
    status = HTTPStatus(error.status_code)
    code = error.code if isinstance(error, ProblemError) else status.phrase.lower().replace(" ", "_").replace("-", "_")
    problem: Problem = {
        "type": f"/problems/{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": error.detail,
        "instance": quote(scope["path"]),
        "code": code,
        "request_id": scope["state"]["request_id"],
        "errors": list(error.errors) if isinstance(error, ProblemError) else [],
    }
    return {**problem, **(error.members if isinstance(error, ProblemError) else {})}


def problem_response(scope: Scope, error: HTTPException) -> Response:
    """The answer for an error. ASCII only and without NaN, so that there is no error that it cannot say."""
    problem = problem_of(scope, error)
    content = json.dumps(problem, ensure_ascii=True, allow_nan=False)
    headers = {**(error.headers or {}), "X-Request-Id": problem["request_id"]}
    return Response(content, error.status_code, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(InvalidTransition, _job_error)
    app.add_exception_handler(UnknownJob, _job_error)
    app.add_exception_handler(QuotaExceeded, _job_error)
    app.add_exception_handler(DatabaseUnavailable, _database_away)
    app.add_exception_handler(BlobsInUse, _blobs_in_use)
    app.add_exception_handler(Exception, _internal_error)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, quoted(request.url.path)
    if type(error) is HTTPException and error.status_code == HTTPStatus.NOT_FOUND:
        error = NotFound(f"expected a path that /openapi.json lists, got {path}")
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _allowed_methods(request)
        detail = f"expected {' or '.join(allowed)} for {path}, got {method}"
        error = HTTPException(error.status_code, detail, {"Allow": ", ".join(allowed)})
    return problem_response(request.scope, error)


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes of the path; the framework names those of the first one only."""
    routes = iter_route_contexts(request.app.routes)
    matching = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in matching for method in route.methods or ()})


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    body_field = getattr(request.scope.get("route"), "body_field", None)
    schema = _json_schema(body_field.field_info.annotation) if body_field is not None else {}
    items = error_items(error.errors(), error.body, schema)
    where = items[0]["pointer"] or items[0].get("parameter") or "the body"
    more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
    detail = f"{where}: {items[0]['message']}{more}"
    return problem_response(request.scope, InvalidRequest(detail, errors=items))


@lru_cache(maxsize=32)
def _json_schema(annotation: Any) -> Schema:
    return TypeAdapter(annotation).json_schema()


def as_problem(error: ProblemError | InvalidTransition | UnknownJob | QuotaExceeded) -> ProblemError:
    """What the store says of a job, as a client gets it."""
    match error:
        case InvalidTransition(job=job):
            actions: list[JsonValue] = list(allowed_actions(job))
            return Conflict(str(error), members={"job_status": str(job.status), "allowed_actions": actions})
        case UnknownJob():
            return JobNotFound(str(error))
        case QuotaExceeded(quota=quota):
            room: dict[str, JsonValue] = {"quota": quota, "limit": error.limit, "used": error.used}
            if quota == "queued":
                return TooManyRequests(str(error), members=room, headers={"Retry-After": "30"})
            return QuotaUsedUp(str(error), members=room)
    return error


def _job_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidTransition | UnknownJob | QuotaExceeded)
    return problem_response(request.scope, as_problem(error))


def _database_away(request: Request, error: Exception) -> Response:
    logger.warning("database away during %s %s: %s", request.method, request.url.path, error)
    away = Unavailable("the database does not answer; nothing was changed; try again", headers={"Retry-After": "2"})
    return problem_response(request.scope, away)


def _blobs_in_use(request: Request, error: Exception) -> Response:
    logger.warning("blobs in use during %s %s", request.method, request.url.path)
    busy = Unavailable(f"{error}; nothing was deleted; try again", headers={"Retry-After": "2"})
    return problem_response(request.scope, busy)


def _internal_error(request: Request, error: Exception) -> Response:
    """The framework logs the traceback and raises on; the client gets the id to look it up by."""
    del error
    detail = "an error in the server, logged under this request id"
    return problem_response(request.scope, HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR, detail))
