"""What is asked of the server and how its answers are read, without sending anything: both clients share this."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from server.client.errors import ClientError, TooMany, Unavailable, Unreachable, raise_for_problem
from server.operation_schemas import Worker, WorkerPage
from server.plan_schemas import Plan
from server.prediction_schemas import Layout, Predictions
from server.schemas import (
    Artifact,
    ArtifactPage,
    Attempt,
    AttemptPage,
    BatchResult,
    BatchResults,
    Event,
    EventPage,
    Job,
    JobPage,
    LoggedEvent,
    LoggedEventPage,
    MetricPage,
    MetricPoint,
    Page,
)

DEFAULT_URL: Final = "http://127.0.0.1:8000"
PAGE_SIZE: Final = 200
RETRIES: Final = 2
FIRST_DELAY_SECONDS: Final = 0.2
MAX_DELAY_SECONDS: Final = 5.0

T = TypeVar("T")
Item = TypeVar("Item", bound=BaseModel)
OnDuplicate = Literal["create", "reuse", "reject"]
OnDomainChange = Literal["wait", "continue"]
Action = Literal["cancel", "pause", "resume", "retry", "delete"]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    read: Callable[[httpx.Response], T]
    method: str
    path: str
    json: Mapping[str, Any] | None = None
    content: bytes | None = None
    """The body where it is no JSON."""
    files: Sequence[tuple[str, tuple[str, bytes]]] | None = None
    """Name and content of each file of a form, by the name of its field."""
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    expected: tuple[int, ...] = ()
    """Error statuses that `read` understands."""
    wait_seconds: float = 0.0
    """How long the server may keep the answer back."""
    is_repeatable: bool = True
    """Whether it may be sent again after its answer was lost: then it means the same."""

    def options(self, timeout: float) -> dict[str, Any]:
        """For `httpx.Client.request`."""
        limits = httpx.Timeout(timeout, read=timeout + self.wait_seconds)
        return {
            "json": self.json,
            "content": self.content,
            "files": self.files,
            "params": self.params,
            "headers": self.headers,
            "timeout": limits,
        }

    def answer(self, response: httpx.Response) -> T:
        """What the response says; raises the ApiError that it is."""
        if response.status_code not in self.expected:
            raise_for_problem(response)
        return self.read(response)


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """A list that comes in pages; `cursor` is the parameter that takes a page's `next_cursor`."""

    page_type: type[Page[Item]]
    path: str
    cursor: str
    params: Mapping[str, str | int]

    def page(self, cursor: str | None) -> Call[Page[Item]]:
        place = {} if cursor is None else {self.cursor: cursor}
        params = {**self.params, "limit": PAGE_SIZE, **place}
        return Call(
            lambda response: self.page_type.model_validate_json(response.content), "GET", self.path, params=params
        )


def retry_delay(call: Call[T], error: ClientError, attempt: int) -> float | None:
    """Seconds after which a call that failed for the `attempt`-th time is sent again; None when it is not."""
    if attempt > RETRIES or not call.is_repeatable or not isinstance(error, Unreachable | Unavailable | TooMany):
        return None
    wanted = error.retry_after if isinstance(error, Unavailable | TooMany) else None
    delay = FIRST_DELAY_SECONDS * 2.0 ** (attempt - 1)
    # Many clients that lost their server at once should not come back at once.
    return min(wanted or delay * (0.5 + secrets.randbelow(1000) / 1000), MAX_DELAY_SECONDS)


def job_path(job_id: str, *rest: str) -> str:
    """The path of a job, or of something below it."""
    return "/".join(("/v1/jobs", *(quote(part, safe="") for part in (job_id, *rest))))


def submit(spec: Mapping[str, Any], options: Mapping[str, Any]) -> Call[Job]:
    """`options` are the further fields of the body."""
    body = {"spec": spec, **options}
    return Call(_job, "POST", "/v1/jobs", body, headers={"Idempotency-Key": secrets.token_hex(16)})


def plan(spec: Mapping[str, Any]) -> Call[Plan]:
    return Call(lambda response: Plan.model_validate_json(response.content), "POST", "/v1/plans", {"spec": spec})


def get(job_id: str) -> Call[Job]:
    return Call(_job, "GET", job_path(job_id))


def ask(job_id: str, action: str, body: Mapping[str, str] | None = None) -> Call[Job]:
    return Call(_job, "POST", job_path(job_id, action), body)


def change(job_id: str, values: Mapping[str, Any]) -> Call[Job]:
    return Call(_job, "PATCH", job_path(job_id), values)


def delete(job_id: str) -> Call[None]:
    """Not sent again: what was deleted the first time would not be found the second time."""
    return Call(lambda _: None, "DELETE", job_path(job_id), is_repeatable=False)


def batch(action: Action, ids: Sequence[str], options: Mapping[str, str]) -> Call[tuple[BatchResult, ...]]:
    body = {"action": action, "ids": ids, **options}
    return Call(_results, "POST", "/v1/jobs/batch", body, is_repeatable=action != "delete")


def logs(job_id: str, tail: int | None) -> Call[str]:
    return Call(lambda response: response.text, "GET", job_path(job_id, "logs"), params=_given(tail=tail))


def predict(job_id: str, images: Sequence[Path | bytes], top_k: int, layout: Layout | None) -> Call[Predictions]:
    """Reads the files. Nothing changes by it, so that it may be sent again."""
    files = [
        ("image", (str(number), image) if isinstance(image, bytes) else (image.name, image.read_bytes()))
        for number, image in enumerate(images)
    ]
    path, params = job_path(job_id, "predict"), _given(top_k=top_k, layout=layout)
    return Call(
        lambda response: Predictions.model_validate_json(response.content), "POST", path, files=files, params=params
    )


def list_jobs(
    statuses: Sequence[str],
    name: str | None,
    tags: Sequence[str],
    created_after: datetime | None,
    created_before: datetime | None,
) -> Listing[Job]:
    params = _given(
        status=",".join(statuses),
        name=name,
        tag=",".join(tags),
        created_after=None if created_after is None else created_after.isoformat(),
        created_before=None if created_before is None else created_before.isoformat(),
    )
    return Listing(JobPage, "/v1/jobs", "cursor", params)


def list_metrics(job_id: str, keys: Sequence[str], from_step: int | None) -> Listing[MetricPoint]:
    params = _given(keys=",".join(keys), from_step=from_step)
    return Listing(MetricPage, job_path(job_id, "metrics"), "cursor", params)


def list_events(job_id: str, after: int, types: Sequence[str]) -> Listing[Event]:
    return Listing(EventPage, job_path(job_id, "events"), "after", _given(after=after, types=",".join(types)))


def list_all_events(after: int, types: Sequence[str]) -> Listing[LoggedEvent]:
    return Listing(LoggedEventPage, "/v1/events", "after", _given(after=after, types=",".join(types)))


def list_artifacts(job_id: str) -> Listing[Artifact]:
    return Listing(ArtifactPage, job_path(job_id, "artifacts"), "cursor", {})


def list_attempts(job_id: str) -> Listing[Attempt]:
    return Listing(AttemptPage, job_path(job_id, "attempts"), "cursor", {})


def list_workers() -> Listing[Worker]:
    return Listing(WorkerPage, "/v1/workers", "cursor", {})


def _results(response: httpx.Response) -> tuple[BatchResult, ...]:
    return BatchResults.model_validate_json(response.content).data


def _job(response: httpx.Response) -> Job:
    return Job.model_validate_json(response.content)


def _given(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value not in (None, "")}
