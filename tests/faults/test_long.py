"""What only shows after a while: ten minutes of standing still, and a queue that takes its messages back."""

from __future__ import annotations

import sys
import time

import pytest

from cnn.spec import TrainingSpec
from tests.faults.conftest import Settle, Start
from tests.faults.installation import Installation
from tests.faults.test_freezes import FREEZES

FREEZE_SECONDS = 600
VISIBILITY_SECONDS = 5
IMPATIENT_WORKER = f"""
import sys
import worker.service as service

def make_celery(settings, made=service.make_celery, **options):
    app = made(settings, **options)
    app.conf.broker_transport_options = app.conf.broker_transport_options | {{
        "visibility_timeout": {VISIBILITY_SECONDS}, "unacked_restore_interval": 1, "unacked_restore_throttle": 1
    }}
    return app

service.make_celery = make_celery
sys.exit(service.serve())
"""
"""A worker whose queue takes back what was not acknowledged for five seconds."""


@pytest.fixture
def endless(long: TrainingSpec) -> TrainingSpec:
    return long.model_copy(update={"training": long.training.model_copy(update={"epochs": 100_000})})


def stays_with_its_first_attempt(installation: Installation, job_id: str, settle: Settle) -> None:
    """The job trains still, and goes on."""
    installation.wait_for_step(job_id, installation.job(job_id).checkpoint_step + 1)
    installation.client.cancel(job_id)
    settle(installation)
    assert installation.reasons(job_id) == ["cancelled"]


@pytest.mark.slow
@pytest.mark.timeout(FREEZE_SECONDS + 300)
@pytest.mark.parametrize("part", FREEZES)
def test_ten_minutes_of_standing_still_cost_no_attempt(
    part: str, start: Start, endless: TrainingSpec, settle: Settle
) -> None:
    installation = start(num_workers=2, heartbeat_seconds="2", lease_seconds="10")
    job_id = installation.submit(f"endless/frozen {part}", endless)
    installation.client.may_not_succeed.add(job_id)
    step = installation.wait_for_step(job_id, 1).checkpoint_step
    with FREEZES[part](installation):
        time.sleep(FREEZE_SECONDS)
    installation.wait_for_step(job_id, step + 100)
    stays_with_its_first_attempt(installation, job_id, settle)


@pytest.mark.slow
def test_a_queue_that_takes_messages_back_trains_once(start: Start, endless: TrainingSpec, settle: Settle) -> None:
    installation = start(num_workers=0)
    for _ in range(2):
        installation.add_worker([sys.executable, "-c", IMPATIENT_WORKER])
    job_id = installation.submit("endless/visibility", endless)
    installation.client.may_not_succeed.add(job_id)
    installation.wait_for_step(job_id, 1)
    time.sleep(12 * VISIBILITY_SECONDS)
    stays_with_its_first_attempt(installation, job_id, settle)
