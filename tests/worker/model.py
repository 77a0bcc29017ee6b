"""The rules of jobs without a database: what the store must do, written down a second time, as plainly as possible."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.jobs import TRANSITIONS, Fenced, Intent, JobStatus, PauseReason

MAX_FRUITLESS = 3


class Refused(Exception):
    """The job's status does not allow what a user asks."""


@dataclass
class Model:
    """One job: what the store's row says, and everything that happened."""

    id: str
    priority: int
    number: int
    """Place in the order of submission."""
    status: JobStatus = JobStatus.QUEUED
    intent: Intent | None = None
    pause_reason: PauseReason | None = None
    attempt: int = 0
    token: int = 0
    heartbeat: int = 0
    fruitless_attempts: int = 0
    checkpoint_step: int = 0
    first_step: int = 0
    first_attempt: int = 1
    points: dict[int, int] = field(default_factory=dict)
    """Step of each metric, and the attempt that wrote it."""
    edges: list[tuple[JobStatus | None, JobStatus, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.edges.append((None, JobStatus.QUEUED, "created"))

    def move(self, to: JobStatus, reason: str, pause_reason: PauseReason = PauseReason.USER) -> None:
        assert to in TRANSITIONS[self.status], f"{self.status} -> {to}"
        self.edges.append((self.status, to, reason))
        self.status, self.intent = to, None
        self.pause_reason = pause_reason if to == JobStatus.PAUSED else None

    # What workers do.

    def claim(self) -> None:
        self.move(JobStatus.RUNNING, "claimed")
        self.attempt += 1
        self.token += 1
        self.heartbeat += 1
        self.first_step = self.checkpoint_step
        self.points = {step: attempt for step, attempt in self.points.items() if step <= self.checkpoint_step}

    def hold(self, token: int) -> None:
        if self.status != JobStatus.RUNNING or self.token != token:
            raise Fenced(self.id, token)

    def beat(self, token: int) -> None:
        self.hold(token)
        self.heartbeat += 1

    def measure(self, token: int, step: int) -> None:
        self.hold(token)
        self.points[step] = self.attempt

    def save(self, token: int, step: int) -> None:
        self.hold(token)
        self.checkpoint_step, self.fruitless_attempts = step, 0

    def finish(self, token: int, status: JobStatus) -> None:
        self.hold(token)
        self.move(status, "ended")

    def drain(self, token: int) -> None:
        self.hold(token)
        self._give_back("worker_drained")

    def meet_full_disk(self, token: int) -> None:
        self.hold(token)
        if self.intent is None:
            self.move(JobStatus.PAUSED, "disk_full", PauseReason.DISK_FULL)
        else:
            self._give_back("disk_full")

    def crash(self, token: int) -> None:
        self.hold(token)
        self._end_badly("trainer_crashed")

    # What observers do.

    def take_back(self, token: int, heartbeat: int) -> bool:
        silent = (self.status, self.token, self.heartbeat) == (JobStatus.RUNNING, token, heartbeat)
        if silent:
            self._end_badly("worker_lost")
        return silent

    def find_room(self) -> bool:
        waits = self.pause_reason == PauseReason.DISK_FULL
        if waits:
            self.move(JobStatus.QUEUED, "disk_has_room")
        return waits

    # What users ask.

    def cancel(self) -> None:
        if self.status in (JobStatus.SUCCEEDED, JobStatus.FAILED):
            raise Refused
        if self.status == JobStatus.RUNNING:
            self.intent = Intent.CANCEL
        elif self.status != JobStatus.CANCELLED:
            self.move(JobStatus.CANCELLED, "cancelled")

    def pause(self) -> None:
        if self.status.terminal or self.intent == Intent.CANCEL:
            raise Refused
        if self.status == JobStatus.QUEUED:
            self.move(JobStatus.PAUSED, "paused")
        elif self.status == JobStatus.PAUSED:
            self.pause_reason = PauseReason.USER
        else:
            self.intent = Intent.PAUSE

    def resume(self) -> None:
        if self.status.terminal or self.intent == Intent.CANCEL:
            raise Refused
        if self.status == JobStatus.PAUSED:
            self.move(JobStatus.QUEUED, "resumed")
        self.intent = None

    def retry(self, scratch: bool) -> None:
        under_way = self.status in (JobStatus.QUEUED, JobStatus.RUNNING) and self.intent is None
        if under_way and (not scratch or self.first_attempt > 1):
            return
        if self.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise Refused
        self.move(JobStatus.QUEUED, "retried")
        self.fruitless_attempts = 0
        if scratch:
            self.first_attempt, self.checkpoint_step = self.attempt + 1, 0

    def _end_badly(self, reason: str) -> None:
        fruitless = 0 if self.checkpoint_step > self.first_step else self.fruitless_attempts + 1
        if self.intent != Intent.CANCEL:
            self.fruitless_attempts = fruitless
            if fruitless >= MAX_FRUITLESS:
                return self.move(JobStatus.FAILED, reason)
        return self._give_back(reason)

    def _give_back(self, reason: str) -> None:
        match self.intent:
            case Intent.CANCEL:
                self.move(JobStatus.CANCELLED, "cancelled")
            case Intent.PAUSE:
                self.move(JobStatus.PAUSED, "paused")
            case None:
                self.move(JobStatus.QUEUED, reason)
                self.token += 1
