"""A typed client: submit jobs, follow them, fetch what they made.

    with Client("http://127.0.0.1:8000") as client:
        job = client.submit(spec, name="fashion")
        for job in client.wait(job.id):
            print(job.status, job.latest_metrics)
        client.download(job.id, "model.safetensors", Path("model.safetensors"))

ClientError
├── Unreachable        nothing answers at the URL, or too late
├── NoSuchArtifact     the job has no artifact of that name
├── DigestMismatch     a download is not what the server announced
└── ApiError           the server answered with a problem
    ├── InvalidRequest   400, 413, 415, 422: the request is wrong
    ├── NotFound         404
    ├── Conflict         409: the job's status does not allow it
    └── Unavailable      5xx: the server, its database or its queue cannot serve now
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from server.schemas import (
    Artifact,
    ArtifactPage,
    Event,
    EventPage,
    Job,
    JobPage,
    MetricPage,
    MetricPoint,
    Page,
    Problem,
)

DEFAULT_URL = "http://127.0.0.1:8000"
PAGE_SIZE = 200
Item = TypeVar("Item", bound=BaseModel)


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

    def __init__(self, status_code: int, problem: Problem) -> None:
        super().__init__(problem["detail"])
        self.status_code = status_code
        self.problem = problem


class InvalidRequest(ApiError):
    """The request is wrong; `problem["errors"]` says where."""


class NotFound(ApiError):
    """There is no such job or artifact."""


class Conflict(ApiError):
    """The job's status does not allow what was asked."""


class Unavailable(ApiError):
    """The server, its database or its queue cannot serve now."""


class Client:
    """Talks to one server.

    Args:
        base_url: where the server is.
        api_key: sent as a bearer token.
        timeout: seconds for each connect, read and write.
        transport: replaces the network, for tests.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self,
        spec: Mapping[str, Any],
        *,
        name: str | None = None,
        priority: int = 0,
        tags: Sequence[str] = (),
    ) -> Job:
        """Ask for a job. `spec` is a `TrainingSpec` as JSON."""
        body = {"spec": spec, "name": name, "priority": priority, "tags": tags}
        return Job.model_validate_json(self._request("POST", "/v1/jobs", json=body).content)

    def get(self, job_id: str) -> Job:
        return Job.model_validate_json(self._request("GET", _path(job_id)).content)

    def list(self, *, statuses: Sequence[str] = (), name: str | None = None) -> Iterator[Job]:
        """All jobs, newest first, page by page."""
        return self._pages(JobPage, "/v1/jobs", "cursor", status=",".join(statuses), name=name)

    def wait(self, job_id: str, *, poll_seconds: float = 0.5, patience_seconds: float = 60.0) -> Iterator[Job]:
        """The job each time that it has changed, until it is terminal.

        A server that is away meanwhile, as during a restart, is waited for up to `patience_seconds`.
        """
        etag = ""
        heard_at = time.monotonic()
        while True:
            try:
                response = self._request("GET", _path(job_id), headers={"If-None-Match": etag} if etag else {})
            except (Unreachable, Unavailable):
                if time.monotonic() - heard_at > patience_seconds:
                    raise
            else:
                heard_at = time.monotonic()
                if response.status_code != httpx.codes.NOT_MODIFIED:
                    etag = response.headers["ETag"]
                    job = Job.model_validate_json(response.content)
                    yield job
                    if job.terminal:
                        return
            time.sleep(poll_seconds)

    def cancel(self, job_id: str, *, now: bool = False) -> Job:
        """Cancel a job; with `now` its trainer is killed instead of asked to stop."""
        return self._ask(job_id, "cancel", {"mode": "now" if now else "graceful"})

    def pause(self, job_id: str) -> Job:
        """Let a job rest: a running one at its next checkpoint."""
        return self._ask(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        return self._ask(job_id, "resume")

    def retry(self, job_id: str, *, scratch: bool = False) -> Job:
        """Queue a failed or cancelled job again, from its newest checkpoint or from scratch."""
        return self._ask(job_id, "retry", {"from": "scratch" if scratch else "checkpoint"})

    def change(self, job_id: str, **values: Any) -> Job:
        """Set `name`, `priority` or `tags`."""
        return Job.model_validate_json(self._request("PATCH", _path(job_id), json=values).content)

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with all its files."""
        self._request("DELETE", _path(job_id))

    def metrics(self, job_id: str, *, keys: Sequence[str] = (), from_step: int | None = None) -> Iterator[MetricPoint]:
        """Every point of the series, by step."""
        path = f"{_path(job_id)}/metrics"
        return self._pages(MetricPage, path, "cursor", keys=",".join(keys), from_step=from_step)

    def events(self, job_id: str, *, after: int = 0, types: Sequence[str] = ()) -> Iterator[Event]:
        """The events there are by now, from the one behind `after` on."""
        return self._pages(EventPage, f"{_path(job_id)}/events", "after", after=after, types=",".join(types))

    def logs(self, job_id: str, *, tail: int | None = None) -> str:
        """The log of all attempts, or its last `tail` lines."""
        return self._request("GET", f"{_path(job_id)}/logs", params={} if tail is None else {"tail": tail}).text

    def follow_logs(self, job_id: str, *, poll_seconds: float = 0.5) -> Iterator[str]:
        """The log as it grows, until the job is terminal."""
        offset = 0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            terminal = self.get(job_id).terminal
            response = self._send("GET", f"{_path(job_id)}/logs", headers={"Range": f"bytes={offset}-"})
            if response.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                _raise_for_problem(response)
                if response.content:
                    offset += len(response.content)
                    yield decoder.decode(response.content)
                    continue
            if terminal:
                return
            time.sleep(poll_seconds)

    def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        return tuple(self._pages(ArtifactPage, f"{_path(job_id)}/artifacts", "cursor"))

    def download(self, job_id: str, name: str, target: Path) -> Artifact:
        """Fetch an artifact, verify its SHA-256, and only then give it the name `target`.

        What an interrupted download left beside the target is continued.

        Raises:
            NoSuchArtifact: the job has none of this name.
            DigestMismatch: the bytes are not those that the server announced.
        """
        artifacts = {artifact.name: artifact for artifact in self.artifacts(job_id)}
        if name not in artifacts:
            raise NoSuchArtifact(
                f"expected one of the job's artifacts ({', '.join(artifacts) or 'none yet'}), got {name!r}"
            )
        artifact = artifacts[name]
        part = target.with_name(f".{target.name}.{artifact.sha256[:16]}.part")
        self._fetch(f"{_path(job_id)}/artifacts/{quote(name, safe='')}", artifact, part)
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != artifact.sha256:
            part.unlink()
            raise DigestMismatch(f"{name}: expected SHA-256 {artifact.sha256}, got {sha256}")
        part.replace(target)
        return artifact

    def _fetch(self, url: str, artifact: Artifact, part: Path) -> None:
        with part.open("ab") as file:
            offset = file.tell()
            if offset >= artifact.bytes:
                return
            headers = {"Range": f"bytes={offset}-", "If-Range": f'"{artifact.sha256}"'} if offset else {}
            with self._translated(), self._http.stream("GET", url, headers=headers) as response:
                if response.is_error:
                    response.read()
                _raise_for_problem(response)
                if response.status_code != httpx.codes.PARTIAL_CONTENT:
                    file.truncate(0)
                for chunk in response.iter_bytes():
                    file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def _pages(self, page_type: type[Page[Item]], path: str, cursor: str, **params: str | int | None) -> Iterator[Item]:
        """The items of all pages; `cursor` is the parameter that takes a page's `next_cursor`."""
        query: dict[str, str | int | None] = {name: value for name, value in params.items() if value not in (None, "")}
        while True:
            response = self._request("GET", path, params={**query, "limit": PAGE_SIZE})
            page = page_type.model_validate_json(response.content)
            yield from page.data
            if not page.has_more:
                return
            query[cursor] = page.next_cursor

    def _ask(self, job_id: str, action: str, body: Mapping[str, str] | None = None) -> Job:
        return Job.model_validate_json(self._request("POST", f"{_path(job_id)}/{action}", json=body).content)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self._send(method, path, **options)
        _raise_for_problem(response)
        return response

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._translated():
            return self._http.request(method, path, **options)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(str(self._http.base_url), reason) from error


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _raise_for_problem(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        problem: Problem = response.json()
    except json.JSONDecodeError:  # something between us and the server answered
        problem = _unknown_problem(response)
    match response.status_code:
        case 404:
            raise NotFound(404, problem)
        case 409:
            raise Conflict(409, problem)
        case status if status < 500:
            raise InvalidRequest(status, problem)
        case status:
            raise Unavailable(status, problem)


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
