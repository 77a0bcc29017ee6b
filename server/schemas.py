"""What the API answers with. Only pydantic is needed to read it, so that client and server share these types."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, NotRequired, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue
from typing_extensions import TypedDict

T = TypeVar("T")


class ErrorItem(TypedDict):
    """One thing that is wrong with a request."""

    pointer: str | None
    """JSON Pointer (RFC 6901) into the body that was sent; null where the fault is not at a place in it."""
    parameter: NotRequired[str]
    """Name of the query or path parameter that is wrong."""
    image: NotRequired[int]
    """Which of the files of images is wrong; the first is 0."""
    offset: NotRequired[int]
    """Byte of the body at which reading stopped."""
    code: str
    message: str
    """What was expected, and what came."""
    allowed: NotRequired[list[JsonValue]]
    got: NotRequired[JsonValue]
    """What came, shortened."""
    fix: NotRequired[list[dict[str, JsonValue]]]
    """JSON Patch (RFC 6902) of the body that mends this fault, where one is likely."""


class Problem(TypedDict):
    """The body of every answer that is an error: `application/problem+json` (RFC 9457)."""

    type: str
    """URI reference that names the kind of problem."""
    title: str
    status: int
    detail: str
    instance: str
    code: str
    """The kind of problem, for scripts."""
    request_id: str
    errors: list[ErrorItem]
    quota: NotRequired[str]
    """Where a quota of the API key has no room: which one."""
    limit: NotRequired[int]
    """Of that quota."""
    used: NotRequired[float]
    """Of that quota, with what is reserved for jobs that have not ended."""
    job_id: NotRequired[str]
    """In a conflict with `on_duplicate: reject`: the job that is there."""
    job_status: NotRequired[str]
    """In a conflict: the job's status."""
    allowed_actions: NotRequired[list[str]]
    """In a conflict: what may be asked of the job now."""


class Answer(BaseModel):
    """A part of an answer. Clients must tolerate fields and values that they do not know."""

    model_config = ConfigDict(from_attributes=True, frozen=True, use_attribute_docstrings=True)


class DatasetReference(Answer):
    id: str
    digest: str | None
    """`sha256:…` of the images and labels; known once a trainer has loaded them."""


class Progress(Answer):
    epoch: int
    """Counts from 1; 0 before the first."""
    epochs: int
    step: int
    """Optimizer updates done."""
    num_steps: int
    fraction: float
    eta_at: datetime | None
    updated_at: datetime


class Best(Answer):
    metric: str
    value: float
    epoch: int
    step: int


class Result(Answer):
    test_loss: float
    test_accuracy: float
    weights: str
    """Which weights are delivered: `best` (by the monitored metric) or `last`."""
    epoch: int
    step: int
    artifact: str
    sha256: str


class JobFailure(Answer):
    code: str
    message: str
    blame: str
    """Whose move it is: `user`, `data`, `capacity` or `platform`."""
    retryable: bool
    pointer: str | None
    """JSON Pointer into the spec, where the reason has a place there."""
    hint: str | None
    log_tail: tuple[str, ...]


class Queue(Answer):
    position: int
    """Place among the queued jobs; the next one to be claimed is 1."""
    ahead: int
    """Jobs that will be claimed before this one."""
    estimated_start_at: datetime | None
    """By what such jobs have taken so far; null where no worker is there that could take the job."""


class Links(Answer):
    self: str
    attempts: str
    events: str
    metrics: str
    logs: str
    artifacts: str


class Limits(Answer):
    max_runtime_seconds: int | None
    """How long the attempts may run in total, counted anew after a retry; null for ever."""


class Job(Answer):
    """What was asked, and what happened."""

    id: str
    name: str | None
    tags: tuple[str, ...]
    priority: int
    status: str
    """`queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`."""
    pause_reason: str | None
    """What a paused job waits for: its `user`, or room where the `disk_full`; then it goes on by itself."""
    intent: str | None
    """What a user wants of a running job and has not happened yet: `cancel` or `pause`."""
    terminal: bool
    """Whether nothing happens any more by itself."""
    phase: str | None
    """What a running job does: `starting`, `preparing_data`, `training`, `evaluating` or `exporting`."""
    allowed_actions: tuple[str, ...]
    spec: dict[str, Any]
    """The resolved `TrainingSpec`: every default filled in."""
    spec_digest: str
    dataset: DatasetReference
    progress: Progress | None
    latest_metrics: dict[str, float | None]
    """Newest value of each series; null where it was not finite."""
    best: Best | None
    result: Result | None
    error: JobFailure | None
    queue: Queue | None
    attempt: int
    worker: str | None
    threads: int | None
    device: str | None
    determinism: dict[str, Any] | None
    """What the bytes of the results depend on beside spec, data and seed."""
    on_domain_change: str
    """Whether the job would `wait` or `continue` where no worker is there that gives the same bytes."""
    limits: Limits
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    links: Links


class MetricPoint(Answer):
    key: str
    epoch: int
    step: int
    value: float | None
    """Null where the value was not finite."""
    at: datetime
    timing: bool
    """Whether the series depends on the clock, and so differs between equal runs."""


class Event(Answer):
    id: int
    """Counts from 1 within the job, without gaps."""
    type: str
    at: datetime
    attempt: int
    data: dict[str, Any]


class LoggedEvent(Event):
    """An event of one of all jobs."""

    job_id: str
    number: int
    """Rises over the events of all jobs, with gaps; goes into `after`."""


class Attempt(Answer):
    """One try at a job by one worker."""

    number: int
    """Counts from 1, and rises with every try and retry."""
    worker: str
    device: str
    started_at: datetime
    ended_at: datetime | None
    first_step: int
    """The step that it continued from; 0 where it began from scratch."""
    last_step: int | None
    """The last step that it told of; null while it runs."""
    exit_code: int | None
    signal: int | None
    """What killed the trainer, where something did."""
    reason: str | None
    """Why it ended."""


class BatchResult(Answer):
    """What came of a batch's action for one job."""

    id: str
    status_code: int
    """What the same request for this job alone would have been answered with."""
    job: Job | None
    """The job after the action; null where it failed, or deleted the job."""
    problem: Problem | None


class BatchResults(Answer):
    data: tuple[BatchResult, ...]
    """In the order of the ids."""


class Artifact(Answer):
    name: str
    bytes: int
    sha256: str
    media_type: str
    created_at: datetime
    step: int | None


class Page(Answer, Generic[T]):
    """A part of a list, in the list's order."""

    data: tuple[T, ...]
    next_cursor: str | None
    """Where the next page begins; null on the last one."""
    has_more: bool


class JobPage(Page[Job]):
    """Jobs, newest first."""


class MetricPage(Page[MetricPoint]):
    """Points, by step and then key."""


class EventPage(Page[Event]):
    """Events, oldest first; `next_cursor` goes into `after`."""


class LoggedEventPage(Page[LoggedEvent]):
    """Events of all jobs, oldest first; `next_cursor` goes into `after`."""


class AttemptPage(Page[Attempt]):
    """Attempts, oldest first."""


class ArtifactPage(Page[Artifact]):
    """Artifacts, the weights first."""
