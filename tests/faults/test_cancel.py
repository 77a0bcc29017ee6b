"""A cancel, in every phase of a job: its processes are gone within the grace and two seconds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn.spec import TrainingSpec
from tests.faults.conftest import QUICK
from tests.faults.installation import Installation
from tests.faults.test_kills import exports, soon
from tests.integration.processes import wait_until
from worker.artifacts import attempt_folder
from worker.jobs import JobStatus
from worker.store import attempts
from worker.trainer import EXIT_STOPPED

MARGIN_SECONDS = 2.0
NUM_IMAGES = 60_000
NUM_PICTURES = 400

Moment = Callable[[Installation, str], Callable[[], bool]]


def in_phase(phase: str) -> Moment:
    """The job does this, by its record."""

    def moment(installation: Installation, job_id: str) -> Callable[[], bool]:
        return lambda: installation.job(job_id).phase == phase and job_id in installation.trainers.values()

    return moment


def saving(installation: Installation, job_id: str) -> Callable[[], bool]:
    """A checkpoint is being written."""
    folder = attempt_folder(installation.data_dir, job_id, 1).checkpoints
    return lambda: any(folder.glob(".step-*"))


def exporting(installation: Installation, job_id: str) -> Callable[[], bool]:
    """Files for users are being written."""
    return exports(installation, job_id, 1)


MOMENTS: dict[str, tuple[str, Moment]] = {
    "loading data": ("pictures", in_phase("preparing_data")),
    "training a GAN": ("gan", in_phase("training_gan")),
    "training": ("endless", in_phase("training")),
    "saving a checkpoint": ("endless", saving),
    "evaluating": ("short", in_phase("evaluating")),
    "exporting": ("short", exporting),
}
"""Where a cancel meets a job of which kind."""


def large_pictures(parent: Path) -> Path:
    """A folder of ten classes whose images take seconds to decode."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    Image.fromarray(noise).save(parent / "noise.png")
    for label in range(10):
        (parent / "pictures" / str(label)).mkdir(parents=True)
        for number in range(NUM_PICTURES // 10):
            (parent / "pictures" / str(label) / f"{number}.png").hardlink_to(parent / "noise.png")
    return parent / "pictures"


@pytest.fixture(scope="module")
def jobs(mix: dict[str, TrainingSpec], tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingSpec]:
    """By what they take long for: to train, to train a GAN, to evaluate, to read their dataset."""
    path = tmp_path_factory.mktemp("many") / "many.npz"
    generator = np.random.default_rng(0)
    np.savez(
        path,
        images=generator.integers(0, 256, (NUM_IMAGES, 8, 8, 3), np.uint8),
        labels=np.arange(NUM_IMAGES, dtype=np.int64) % 10,
    )
    spec = json.loads(mix["00-sgd"].model_dump_json())
    spec |= {"early_stopping": None, "augmentation": []}
    endless = spec | {"training": spec["training"] | {"epochs": 100_000}}
    gan = endless | {"augmentation": [{"type": "gan", "epochs": 100_000, "width": 8}]}
    many = {"type": "npz", "path": str(path), "test_fraction": 0.99}
    short = spec | {"dataset": many, "training": spec["training"] | {"epochs": 1}}
    folder = {
        "type": "image_folder",
        "path": str(large_pictures(path.parent)),
        "test_fraction": 0.5,
        "image_size": [8, 8],
    }
    pictures = endless | {"dataset": folder}
    kinds = {"endless": endless, "gan": gan, "short": short, "pictures": pictures}
    return {kind: TrainingSpec.model_validate_json(json.dumps(content)) for kind, content in kinds.items()}


@pytest.fixture(scope="module")
def slow_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Each trainer imports torch by itself, for seconds."""
    started = Installation(tmp_path_factory.mktemp("fresh"), settings={**QUICK, "launcher": "fresh"})
    yield started
    started.close()


def cancel(installation: Installation, job_id: str) -> None:
    """Cancel the job; as soon as that is due, nothing of it is left."""
    installation.client.may_not_succeed.add(job_id)
    installation.client.cancel(job_id)
    due = installation.settings.cancel_grace_seconds + MARGIN_SECONDS
    wait_until(lambda: job_id not in installation.trainers.values() and installation.job(job_id).terminal, seconds=due)
    assert installation.job(job_id).status == JobStatus.CANCELLED


@pytest.mark.parametrize("name", MOMENTS)
def test_a_trainer_that_does_not_move_is_gone_in_time(
    name: str, installation: Installation, jobs: dict[str, TrainingSpec]
) -> None:
    kind, moment = MOMENTS[name]
    job_id = installation.submit(f"{kind}/cancelled while {name}", jobs[kind])
    soon(moment(installation, job_id))
    os.kill(installation.trainer_of(job_id), signal.SIGSTOP)
    cancel(installation, job_id)
    assert installation.reasons(job_id) == ["cancelled"]


@pytest.mark.parametrize("name", ["training a GAN", "training"])
def test_a_trainer_that_trains_stops_by_itself(
    name: str, installation: Installation, jobs: dict[str, TrainingSpec]
) -> None:
    kind, moment = MOMENTS[name]
    job_id = installation.submit(f"{kind}/stops while {name}", jobs[kind])
    soon(moment(installation, job_id))
    cancel(installation, job_id)
    with installation.database.read() as c:
        (attempt,) = attempts.list_for(c, job_id)
    assert attempt.exit_code == EXIT_STOPPED


@pytest.mark.parametrize("frozen", [False, True])
def test_a_trainer_that_still_imports_is_gone_in_time(
    frozen: bool, slow_start: Installation, jobs: dict[str, TrainingSpec]
) -> None:
    job_id = slow_start.submit(f"endless/imports, frozen: {frozen}", jobs["endless"])
    soon(in_phase("starting")(slow_start, job_id))
    if frozen:
        os.kill(slow_start.trainer_of(job_id), signal.SIGSTOP)
    cancel(slow_start, job_id)
