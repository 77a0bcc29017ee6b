"""Errors as a client sees them: the exception tree. `server.problems` makes `application/problem+json` of it.

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
│   ├── WebhookNotFound       no such webhook
│   ├── DeliveryNotFound      the webhook has no such delivery, or no longer
│   ├── UploadNotFound        no such upload, or no longer
│   └── DatasetNotFound       no such dataset
├── BodyTimeout          408  the body came too slowly
├── Conflict             409  the job's status does not allow it
│   ├── DuplicateJob          a job of this spec is there, and must not be
│   ├── WebhookDisabled       the webhook delivers nothing until it is enabled
│   ├── ModelMissing          the job has no network that can be asked, or not yet
│   └── DatasetNotReady       the dataset is still being validated, or was refused
├── PreconditionFailed   412  what `If-Match` names has changed
├── ContentTooLarge      413  the body is larger than the limit
├── UnsupportedMediaType 415  the body is not `application/json`, or not what the route takes
├── RangeNotSatisfiable  416  the range lies behind the end
├── InvalidRequest       422  the body or a parameter has the wrong meaning
│   ├── DigestMismatch        the bytes that came are not those that were announced
│   ├── UploadDiscarded       the same of a whole file, which was thrown away
│   └── IdempotencyKeyReused  the `Idempotency-Key` belongs to another request
├── TooManyRequests      429  the API key's quota has no room now
│   ├── RateLimited           too many requests with this API key
│   └── TooManyStreams        too many open streams with this API key
├── Unavailable          503  the database, the queue or a worker is away, or a process that predicts
└── InsufficientStorage  507  the disk has no room for it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar

from pydantic import JsonValue
from starlette.exceptions import HTTPException

from server.schemas import ErrorItem


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


class WebhookNotFound(NotFound):
    code = "webhook_not_found"


class DeliveryNotFound(NotFound):
    code = "delivery_not_found"


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


class WebhookDisabled(Conflict):
    code = "webhook_disabled"


class PreconditionFailed(ProblemError):
    status = HTTPStatus.PRECONDITION_FAILED
    code = "precondition_failed"


class ModelMissing(Conflict):
    code = "model_missing"


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


class TooManyStreams(TooManyRequests):
    code = "too_many_streams"


class Unavailable(ProblemError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "unavailable"


class InsufficientStorage(ProblemError):
    status = HTTPStatus.INSUFFICIENT_STORAGE
    code = "insufficient_storage"
