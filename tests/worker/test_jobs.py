from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from worker.jobs import TRANSITIONS, Intent, Job, JobStatus, OnDomainChange, allowed_actions, create_job_id

NOW = datetime(2026, 11, 24, tzinfo=UTC)

JOB = Job(
    id="job_1",
    owner_id=None,
    name=None,
    tags=(),
    priority=0,
    status=JobStatus.QUEUED,
    intent=None,
    cancel_now=False,
    phase=None,
    spec={},
    spec_digest="sha256:0",
    dataset_id="digits",
    dataset_digest=None,
    progress=None,
    latest_metrics={},
    best=None,
    result=None,
    error=None,
    attempt=0,
    first_attempt=1,
    token=0,
    heartbeat=0,
    fruitless_attempts=0,
    checkpoint_step=0,
    worker_id=None,
    device=None,
    threads=None,
    determinism=None,
    domain=None,
    on_domain_change=OnDomainChange.WAIT,
    pause_reason=None,
    max_runtime_seconds=None,
    runtime_seconds=0.0,
    reserved_bytes=0,
    not_before=None,
    last_event_id=0,
    created_at=NOW,
    queued_at=NOW,
    started_at=None,
    finished_at=None,
    updated_at=NOW,
)


def test_terminal_statuses_have_no_way_out_but_a_retry() -> None:
    ways_out = {status: TRANSITIONS[status] for status in JobStatus if status.terminal}
    again = frozenset({JobStatus.QUEUED})
    assert ways_out == {
        JobStatus.SUCCEEDED: frozenset(),
        JobStatus.FAILED: again,
        JobStatus.CANCELLED: again,
    }


@pytest.mark.parametrize(
    ("status", "intent", "actions"),
    [
        (JobStatus.QUEUED, None, ("cancel", "pause")),
        (JobStatus.RUNNING, None, ("cancel", "pause")),
        (JobStatus.RUNNING, Intent.CANCEL, ()),
        (JobStatus.RUNNING, Intent.PAUSE, ("cancel", "resume")),
        (JobStatus.PAUSED, None, ("cancel", "resume")),
        (JobStatus.SUCCEEDED, None, ("delete",)),
        (JobStatus.FAILED, None, ("retry", "delete")),
        (JobStatus.CANCELLED, None, ("retry", "delete")),
    ],
)
def test_allowed_actions(status: JobStatus, intent: Intent | None, actions: tuple[str, ...]) -> None:
    assert allowed_actions(replace(JOB, status=status, intent=intent)) == actions


def test_ids_are_lower_case_and_differ() -> None:
    ids = {create_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(id == id.lower() and id.startswith("job_") and len(id) == 30 for id in ids)
