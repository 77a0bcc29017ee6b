"""The job record, its statuses, and which transitions between them are legal. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ulid import ULID

WEIGHTS = "model.safetensors"
"""The artifact with the delivered weights."""


class JobStatus(StrEnum):
    """What happened to a job. Wishes not yet fulfilled are intents, not statuses."""

    QUEUED = "queued"
    """Waits for a worker."""
    RUNNING = "running"
    """A worker holds it and heartbeats."""
    PAUSED = "paused"
    """Waits for its user, or for room on the disk."""
    SUCCEEDED = "succeeded"
    """Trained, evaluated, exported."""
    FAILED = "failed"
    """Ended with an error."""
    CANCELLED = "cancelled"
    """Ended by its user."""

    @property
    def terminal(self) -> bool:
        """Whether nothing happens any more without a user's request."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class Intent(StrEnum):
    """What a user wants of a running job, until it is done."""

    CANCEL = "cancel"
    PAUSE = "pause"


class PauseReason(StrEnum):
    """What a paused job waits for."""

    USER = "user"
    """Its user resumes it."""
    DISK_FULL = "disk_full"
    """It goes on by itself when there is room on the disk."""


class OnDomainChange(StrEnum):
    """What becomes of a job that has begun, when no worker is there whose results would be the same to the byte."""

    WAIT = "wait"
    """It stays in the queue until there is one."""
    CONTINUE = "continue"
    """It goes on elsewhere; an event says that it is no longer exact."""


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(JobStatus) - {JobStatus.RUNNING},
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}
"""Every legal edge; the store refuses all others."""


class Blame(StrEnum):
    """Whose move it is after a failure."""

    USER = "user"
    """The spec asks for something that cannot work."""
    DATA = "data"
    """The dataset is missing or broken."""
    CAPACITY = "capacity"
    """The machine is too small."""
    PLATFORM = "platform"
    """Our side failed."""


class ErrorCode(StrEnum):
    """Why a job failed, for scripts: the closed list."""

    DIVERGED = "diverged"
    """A loss or gradient was not finite."""
    OUT_OF_MEMORY = "out_of_memory"
    """The trainer needed more memory than there was."""
    DATASET_MISSING = "dataset_missing"
    """The dataset's files are not in the data folder."""
    DATA_CORRUPT = "data_corrupt"
    """The dataset's files are not what they should be."""
    CLASS_WITHOUT_IMAGES = "class_without_images"
    """Class weights were asked for, and the training split lacks a class."""
    INITIAL_WEIGHTS_UNREADABLE = "initial_weights_unreadable"
    """The weights to start from cannot be read."""
    INITIAL_WEIGHTS_DO_NOT_FIT = "initial_weights_do_not_fit"
    """The weights to start from belong to another network."""
    CHECKPOINT_INVALID = "checkpoint_invalid"
    """No checkpoint of the job can be resumed from."""
    DEVICE_UNAVAILABLE = "device_unavailable"
    """The device that the job was claimed for cannot be used."""
    TRAINER_CRASHED = "trainer_crashed"
    """The trainer ended by itself, without saying why."""
    KILLED_BY_SIGNAL = "killed_by_signal"
    """Something killed the trainer, such as the kernel when memory ran out."""
    MAX_RUNTIME_EXCEEDED = "max_runtime_exceeded"
    """The job has run for as long as its limits allow."""
    MAX_ATTEMPTS_EXCEEDED = "max_attempts_exceeded"
    """Workers were lost again and again before a newer checkpoint was written."""
    INTERNAL = "internal"
    """A defect of this software."""


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job failed, for people and for scripts."""

    code: str
    message: str
    blame: str
    retryable: bool
    pointer: str | None = None
    """JSON Pointer into the spec, where the reason has a place there."""
    hint: str | None = None
    log_tail: tuple[str, ...] = ()
    """Last lines of the log."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a succeeded job delivered, judged once on the test split."""

    test_loss: float
    test_accuracy: float
    weights: str
    """`best` or `last`."""
    epoch: int
    step: int
    artifact: str
    """Name of the artifact with the weights."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far training is; `step` counts optimizer updates from 1, `epoch` is 0 before the first."""

    epoch: int
    epochs: int
    step: int
    num_steps: int
    eta_at: datetime | None
    updated_at: datetime

    @property
    def fraction(self) -> float:
        """Share of the updates that are done."""
        return self.step / self.num_steps if self.num_steps else 0.0


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best value of the monitored metric so far."""

    metric: str
    value: float
    epoch: int
    step: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of the store: what was asked, and what happened."""

    id: str
    owner_id: str | None
    """The API key that it belongs to; None where no keys were asked for."""
    name: str | None
    tags: tuple[str, ...]
    priority: int
    status: JobStatus
    intent: Intent | None
    cancel_now: bool
    """Whether the trainer of a job that is being cancelled gets no time to write a checkpoint."""
    phase: str | None
    """What a running job does: starting, preparing_data, training, evaluating, exporting."""
    spec: dict[str, Any]
    """The resolved spec as JSON: every default filled in."""
    spec_digest: str
    dataset_id: str
    dataset_digest: str | None
    """Known once a trainer has loaded the data."""
    progress: Progress | None
    latest_metrics: dict[str, float | None]
    best: Best | None
    result: JobResult | None
    error: JobError | None
    attempt: int
    """Number of the newest attempt; 0 before the first."""
    first_attempt: int
    """Number of the attempt that begins from scratch: checkpoints of earlier ones count no more."""
    token: int
    """Fencing token of the newest claim: only its holder may write."""
    heartbeat: int
    """Counter that the holder raises; observers compare it with itself, never with a clock."""
    fruitless_attempts: int
    """Consecutive attempts that ended badly without a newer checkpoint."""
    checkpoint_step: int
    """Step of the newest recorded checkpoint; 0 without one."""
    worker_id: str | None
    device: str | None
    threads: int | None
    """CPU threads, fixed at the first claim because results depend on them."""
    determinism: dict[str, Any] | None
    """What its results depend on beside spec, data and seed, from the first trainer that told of it."""
    domain: str | None
    """The part of `determinism` that is the worker's, for claims to compare."""
    on_domain_change: OnDomainChange
    pause_reason: PauseReason | None
    """Why it is paused; None where it is not."""
    max_runtime_seconds: int | None
    """How long its attempts may run in total; None: for ever."""
    runtime_seconds: float
    """How long its attempts have run since it was submitted or last retried, without the one that runs now."""
    reserved_bytes: int
    """What its artifacts count in its owner's quota until it has ended."""
    not_before: datetime | None
    """A queued job is not claimed before this time."""
    last_event_id: int
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime

    @property
    def terminal(self) -> bool:
        """Whether nothing happens any more without a user's request."""
        return self.status.terminal


class JobNotFound(LookupError):
    """There is no job with this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id}")
        self.job_id = job_id


class InvalidTransition(Exception):
    """The job's status does not allow what was asked."""

    def __init__(self, job: Job, wanted: str) -> None:
        allowed = ", ".join(allowed_actions(job)) or "nothing"
        super().__init__(f"job {job.id} is {job.status} and cannot become {wanted}; allowed now: {allowed}")
        self.job = job


class Fenced(Exception):
    """The caller no longer holds the job: it was taken back, or has ended. Nothing was written."""

    def __init__(self, job_id: str, token: int) -> None:
        super().__init__(f"token {token} does not hold job {job_id} any more")


def allowed_actions(job: Job) -> tuple[str, ...]:
    """What a user may ask of the job now."""
    match job.status, job.intent:
        case (JobStatus.QUEUED, _) | (JobStatus.RUNNING, None):
            return ("cancel", "pause")
        case (JobStatus.PAUSED, _) | (JobStatus.RUNNING, Intent.PAUSE):
            return ("cancel", "resume")
        case (JobStatus.FAILED | JobStatus.CANCELLED, _):
            return ("retry", "delete")
        case (JobStatus.SUCCEEDED, _):
            return ("delete",)
        case _:
            return ()


def create_job_id() -> str:
    """A new id, such as `job_01k…`: ids sort by time of creation."""
    return f"job_{str(ULID()).lower()}"
