from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from worker.jobs import TRANSITIONS, Intent, Job, JobStatus, allowed_actions, create_job_id

NOW = datetime(2026, 11, 24, tzinfo=UTC)

JOB = Job(
    id="job_1",
    name=None,
    tags=(),
    priority=0,
    status=JobStatus.QUEUED,
    intent=None,
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
    token=0,
    heartbeat=0,
    fruitless_attempts=0,
    checkpoint_step=0,
    worker_id=None,
    device=None,
    threads=None,
    determinism=None,
    not_before=None,
    last_event_id=0,
    created_at=NOW,
    queued_at=NOW,
    started_at=None,
    finished_at=None,
    updated_at=NOW,
)


def test_terminal_statuses_have_no_way_out() -> None:
    assert {status for status in JobStatus if not TRANSITIONS[status]} == {s for s in JobStatus if s.terminal}


@pytest.mark.parametrize(
    ("status", "intent", "actions"),
    [
        (JobStatus.QUEUED, None, ("cancel",)),
        (JobStatus.RUNNING, None, ("cancel",)),
        (JobStatus.RUNNING, Intent.CANCEL, ()),
        (JobStatus.RUNNING, Intent.PAUSE, ("cancel",)),
        (JobStatus.PAUSED, None, ("cancel",)),
        (JobStatus.SUCCEEDED, None, ()),
        (JobStatus.FAILED, None, ()),
        (JobStatus.CANCELLED, None, ()),
    ],
)
def test_allowed_actions(status: JobStatus, intent: Intent | None, actions: tuple[str, ...]) -> None:
    assert allowed_actions(replace(JOB, status=status, intent=intent)) == actions


def test_ids_are_lower_case_and_differ() -> None:
    ids = {create_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(id == id.lower() and id.startswith("job_") and len(id) == 30 for id in ids)
