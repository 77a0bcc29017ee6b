"""Whole runs with the library: the same bytes again, also when they were interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cnn.data import Data
from cnn.determinism import determinism_domain
from cnn.events import Artifact, Checkpoint, Result, Warning_
from cnn.spec import TrainingSpec
from tests.cnn.native.using import using
from tests.cnn.plain import small_spec
from tests.cnn.test_gan_training import spec_with
from tests.cnn.test_training import EVERYTHING, OPTIMIZERS, digest, of, rows, run, stop_after

SPEC = small_spec(
    optimizer={"type": "adam"}, training={"epochs": 2, "batch_size": 100, "drop_last": False, "ema": {"decay": 0.9}}
)
CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(1)


def check_that_bytes_stay_when_it_is_interrupted(spec: TrainingSpec, data: Data, folder: Path) -> None:
    whole = run(spec, data, folder / "whole")
    stopped = run(spec, data, folder / "part", stop=stop_after(9))
    resumed = run(spec, data, folder / "rest", resume_from=of(Checkpoint, stopped)[-1].path)
    assert not of(Warning_, resumed)
    assert rows(resumed) == rows(whole)
    assert resumed[-1] == whole[-1]
    for artifact in of(Artifact, whole):
        assert digest(artifact.path) == digest(folder / "rest" / "artifacts" / artifact.name)


@pytest.mark.usefixtures("native", "threads")
def test_interrupted_or_not_the_bytes_are_the_same(digits: Data, tmp_path: Path) -> None:
    check_that_bytes_stay_when_it_is_interrupted(SPEC, digits, tmp_path)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_so_are_they_with_every_optimizer_and_regularizer(name: str, digits: Data, tmp_path: Path) -> None:
    spec = small_spec(optimizer={"type": name}, **EVERYTHING)
    check_that_bytes_stay_when_it_is_interrupted(spec, digits, tmp_path)


@pytest.mark.usefixtures("native", "threads")
def test_so_are_they_with_images_that_are_resampled(digits: Data, tmp_path: Path) -> None:
    resampling = [{"type": "rotate"}, {"type": "horizontal_flip"}, {"type": "brightness"}, {"type": "perspective"}]
    spec = small_spec(augmentation=resampling, training={"epochs": 2, "batch_size": 100})
    check_that_bytes_stay_when_it_is_interrupted(spec, digits, tmp_path)


@pytest.mark.usefixtures("native")
def test_so_are_they_of_a_gan(digits: Data, tmp_path: Path) -> None:
    check_that_bytes_stay_when_it_is_interrupted(spec_with(), digits, tmp_path)


def test_with_and_without_the_library_the_runs_are_alike_and_of_two_domains(
    folder: Path, digits: Data, tmp_path: Path
) -> None:
    plain, plain_domain = run(SPEC, digits, tmp_path / "plain"), determinism_domain(CPU)
    with using(folder) as native:
        found, domain = run(SPEC, digits, tmp_path / "native"), determinism_domain(CPU)
    assert domain == {**plain_domain, "native": native.digest}
    with_library, without = of(Result, found)[0], of(Result, plain)[0]
    assert with_library.test_loss == pytest.approx(without.test_loss, rel=0.01)
    assert with_library.test_loss != without.test_loss
    page = (tmp_path / "native" / "artifacts" / "report.html").read_text()
    assert native.digest in page


def test_going_on_without_the_library_is_told(folder: Path, digits: Data, tmp_path: Path) -> None:
    with using(folder):
        stopped = run(SPEC, digits, tmp_path / "part", stop=stop_after(3))
    resumed = run(SPEC, digits, tmp_path / "rest", resume_from=of(Checkpoint, stopped)[-1].path)
    assert "'native'" in of(Warning_, resumed)[0].message
