"""Errors as a client sees them: the exception tree, and the one place that makes `application/problem+json` (RFC 9457).

ProblemError                  an answer that is an error
├── MalformedBody        400  the body is not JSON, or has values that JSON or this API cannot hold
├── HostNotAllowed       400  the `Host` header names somebody else
├── Unauthenticated      401  no API key, or none that is active
├── Forbidden            403  the caller may not do that
│   ├── QuotaUsedUp           the API key's quota has no room, and waiting does not help
│   ├── OriginNotAllowed      a page of another origin asks for a change
│   └── InsufficientScope     the API key is not for that
├── NotFound             404  no such path
│   ├── JobNotFound           no such job
│   ├── ArtifactNotFound      the job has no such artifact
│   ├── ApiKeyNotFound        no such API key
│   ├── UploadNotFound        no such upload, or no longer
│   └── DatasetNotFound       no such dataset
├── BodyTimeout          408  the body came too slowly
├── Conflict             409  the job's status does not allow it
│   ├── DuplicateJob          a job of this spec is there, and must not be
│   └── DatasetNotReady       the dataset is still being validated, or was refused
├── PreconditionFailed   412  what `If-Match` names has changed
├── ContentTooLarge      413  the body is larger than the limit
├── UnsupportedMediaType 415  the body is not `application/json`
├── RangeNotSatisfiable  416  the range lies behind the end
├── InvalidRequest       422  the body or a parameter has the wrong meaning
│   ├── DigestMismatch        the bytes that came are not those that were announced
│   ├── UploadDiscarded       the same of a whole file, which was thrown away
│   └── IdempotencyKeyReused  the `Idempotency-Key` belongs to another request
├── TooManyRequests      429  the API key's quota has no room now
│   └── RateLimited           too many requests with this API key
├── Unavailable          503  the database, the queue or a worker is away
└── InsufficientStorage  507  the disk has no room for it
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, ClassVar
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

from server.places import Schema
from server.schemas import ErrorItem, Problem
from server.validation import error_items
from server.wording import quoted
from worker.jobs import InvalidTransition, allowed_actions
from worker.jobs import JobNotFound as UnknownJob
from worker.store.database import DatabaseUnavailable
from worker.store.quotas import QuotaExceeded

MEDIA_TYPE = "application/problem+json"
logger = logging.getLogger(__name__)


class ProblemError(HTTPException):
    """An answer that is an error. Starlette's class is the base because FastAPI lets it pass while it reads a body."""

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[ErrorItem] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(self.status, detail, dict(headers or {}))
        self.errors = errors
        self.members = members or {}


class MalformedBody(ProblemError):
    status = HTTPStatus.BAD_REQUEST
    code = "malformed_body"


class HostNotAllowed(ProblemError):
    status = HTTPStatus.BAD_REQUEST
    code = "host_not_allowed"


class Unauthenticated(ProblemError):
    status = HTTPStatus.UNAUTHORIZED
    code = "unauthenticated"


class Forbidden(ProblemError):
    status = HTTPStatus.FORBIDDEN
    code = "forbidden"


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"


class InsufficientScope(Forbidden):
    code = "insufficient_scope"


class QuotaUsedUp(Forbidden):
    code = "quota_exceeded"


class NotFound(ProblemError):
    status = HTTPStatus.NOT_FOUND
    code = "not_found"


class JobNotFound(NotFound):
    code = "job_not_found"


class ArtifactNotFound(NotFound):
    code = "artifact_not_found"


class ApiKeyNotFound(NotFound):
    code = "api_key_not_found"


class UploadNotFound(NotFound):
    code = "upload_not_found"


class DatasetNotFound(NotFound):
    code = "dataset_not_found"


class BodyTimeout(ProblemError):
    status = HTTPStatus.REQUEST_TIMEOUT
    code = "body_timeout"


class Conflict(ProblemError):
    status = HTTPStatus.CONFLICT
    code = "conflict"


class DuplicateJob(Conflict):
    code = "duplicate_job"


class PreconditionFailed(ProblemError):
    status = HTTPStatus.PRECONDITION_FAILED
    code = "precondition_failed"


class DatasetNotReady(Conflict):
    code = "dataset_not_ready"


class ContentTooLarge(ProblemError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "content_too_large"


class UnsupportedMediaType(ProblemError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_media_type"


class RangeNotSatisfiable(ProblemError):
    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    code = "range_not_satisfiable"


class InvalidRequest(ProblemError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_request"


class IdempotencyKeyReused(InvalidRequest):
    code = "idempotency_key_reused"


class DigestMismatch(InvalidRequest):
    code = "digest_mismatch"


class UploadDiscarded(InvalidRequest):
    code = "upload_discarded"


class TooManyRequests(ProblemError):
    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "quota_exceeded"


class RateLimited(TooManyRequests):
    code = "rate_limited"


class Unavailable(ProblemError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "unavailable"


class InsufficientStorage(ProblemError):
    status = HTTPStatus.INSUFFICIENT_STORAGE
    code = "insufficient_storage"


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


def _internal_error(request: Request, error: Exception) -> Response:
    """The framework logs the traceback and raises on; the client gets the id to look it up by."""
    del error
    detail = "an error in the server, logged under this request id"
    return problem_response(request.scope, HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR, detail))
