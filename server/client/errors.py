"""Errors of the client.

ClientError
├── Unreachable        nothing answers at the URL, or too late
├── NoSuchArtifact     the job has no artifact of that name
├── DigestMismatch     a download is not what the server announced
└── ApiError           the server answered with a problem
    ├── InvalidRequest   400, 413, 415, 422: the request is wrong
    ├── Unauthorized     401, 403: no key, or one that may not do this
    ├── NotFound         404
    ├── Conflict         409, 412: the job's status, or somebody else's change, does not allow it
    ├── TooMany          429: a limit or a quota is used up
    └── Unavailable      5xx: the server, its database or its queue cannot serve now
"""

from __future__ import annotations

import json

import httpx

from server.schemas import Problem


class ClientError(Exception):
    """A request did not succeed."""


class Unreachable(ClientError):
    """Nothing answers at the URL, or too late."""

    def __init__(self, base_url: str, reason: str) -> None:
        super().__init__(f"no answer from {base_url}: {reason}")
        self.base_url = base_url


class NoSuchArtifact(ClientError):
    """The job has no artifact of that name, or not yet."""


class DigestMismatch(ClientError):
    """A download is not what the server announced; it was thrown away."""


class ApiError(ClientError):
    """The server answered with a problem."""

    def __init__(self, status_code: int, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem["detail"])
        self.status_code = status_code
        self.problem = problem
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again."""


class InvalidRequest(ApiError):
    """The request is wrong; `problem["errors"]` says where."""


class Unauthorized(ApiError):
    """No API key was sent, or one that may not do this."""


class NotFound(ApiError):
    """There is no such job or artifact."""


class Conflict(ApiError):
    """The job's status, or a change by somebody else, does not allow what was asked."""


class TooMany(ApiError):
    """A limit or a quota is used up."""


class Unavailable(ApiError):
    """The server, its database or its queue cannot serve now."""


_CLASSES: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    429: TooMany,
}


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the ApiError that a response is; its body has been read."""
    if not response.is_error:
        return
    try:
        problem: Problem = response.json()
    except json.JSONDecodeError:  # something between us and the server answered
        problem = _unknown_problem(response)
    status = response.status_code
    kind = _CLASSES.get(status, InvalidRequest if status < 500 else Unavailable)
    after = response.headers.get("Retry-After", "")
    raise kind(status, problem, float(after) if after.isdecimal() else None)


def _unknown_problem(response: httpx.Response) -> Problem:
    return {
        "type": "about:blank",
        "title": response.reason_phrase,
        "status": response.status_code,
        "detail": f"expected a problem as JSON, got {response.status_code} with {response.text[:200]!r}",
        "instance": response.url.path,
        "code": "unknown",
        "request_id": response.headers.get("X-Request-Id", ""),
        "errors": [],
    }
