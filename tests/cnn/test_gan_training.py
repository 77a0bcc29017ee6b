from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from cnn.data import Data
from cnn.events import Artifact, Checkpoint, Event, Metrics, Phase, Progress, Result, Stopped, Warning_
from cnn.gan.judgement import judge
from cnn.gan_training import GanTraining
from cnn.generative import GAN
from cnn.spec import TrainingSpec
from cnn.splits import train_val_split
from cnn.training import train
from tests.cnn.plain import small_spec
from tests.cnn.test_training import digest, of, rows, stop_after

GAN_STEPS, NETWORK_STEPS = 8, 8  # two epochs each, of 400 images in batches of 100


def spec_with(**gan: Any) -> TrainingSpec:
    return small_spec(
        split={"num_train": 400},
        augmentation=[{"type": "gan", "width": 4, "batch_size": 100, "epochs": 2, **gan}, {"type": "random_crop"}],
        optimizer={"type": "momentum"},
        training={"epochs": 2, "batch_size": 100},
    )


def run(spec: TrainingSpec, data: Data, folder: Path, **arguments: Any) -> list[Event]:
    return list(train(spec, data, checkpoints=folder / "checkpoints", artifacts=folder, **arguments))


@pytest.fixture(scope="module")
def undisturbed(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    return run(spec_with(), digits, tmp_path_factory.mktemp("undisturbed"))


def test_the_gan_is_a_stage_before_the_network(undisturbed: list[Event]) -> None:
    phases = [event.phase for event in of(Phase, undisturbed)]
    assert phases == ["preparing_data", "training_gan", "training", "evaluating", "exporting"]
    told = of(Progress, undisturbed)
    assert (told[0], told[-1]) == (Progress(0, 0, 2, 16), Progress(2, 16, 2, 16))
    assert Progress(1, 4, 2, 16) in told
    series = of(Metrics, undisturbed)
    assert [(row.epoch, row.step) for row in series] == [(1, 4), (2, 8), (1, 12), (2, 16)]
    assert set(series[0].values) == {"gan_generator_loss", "gan_discriminator_loss"}
    assert set(series[1].values) - set(series[0].values) == {
        "gan_class_agreement",
        "gan_diversity",
        "gan_lowest_diversity",
    }
    assert "train_loss" in series[2].values
    assert of(Result, undisturbed)[0].step in (12, 16)


def test_its_files_are_handed_out(undisturbed: list[Event]) -> None:
    files = {event.name: event for event in of(Artifact, undisturbed)}
    assert files["generator.safetensors"].step == GAN_STEPS
    assert load_file(files["generator.safetensors"].path)["first.weight"].shape[1] == 64
    report = json.loads(files["report.json"].path.read_text())
    assert report["gan"] == of(Metrics, undisturbed)[1].values
    assert files["gan_samples.png"].media_type == "image/png"
    assert files["gan_samples.png"].path.read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader(files["metrics.csv"].path.read_text().splitlines()))
    assert [(row["gan_generator_loss"] != "", row["train_loss"] != "") for row in table] == [
        (True, False),
        (True, False),
        (False, True),
        (False, True),
    ]


def test_a_gan_that_learned_nothing_is_warned_of(undisturbed: list[Event]) -> None:
    (warning, *_) = of(Warning_, undisturbed)
    assert warning.message.startswith("the GAN may have collapsed: a classifier takes 0.")


@pytest.mark.parametrize("stops", [[3], [5, 0, 2, 4], [8, 0], [2, 9, 3], [1] * 16])
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bytes(
    stops: list[int], undisturbed: list[Event], digits: Data, tmp_path: Path
) -> None:
    resume_from, steps = None, 0
    for attempt, num_steps in enumerate(stops):
        stopped = run(spec_with(), digits, tmp_path / str(attempt), stop=stop_after(num_steps), resume_from=resume_from)
        if isinstance(stopped[-1], Result):
            break
        steps = min(steps + num_steps, 16)
        assert isinstance(stopped[-1], Stopped)
        assert stopped[-1].step == steps
        resume_from = of(Checkpoint, stopped)[-1].path if of(Checkpoint, stopped) else resume_from
    last = run(spec_with(), digits, tmp_path / "last", resume_from=resume_from)
    assert rows(last) == rows(undisturbed)
    assert last[-1] == undisturbed[-1]
    for artifact in of(Artifact, undisturbed):
        assert digest(artifact.path) == digest(tmp_path / "last" / artifact.name)


def test_it_sees_the_training_split_alone(digits: Data, undisturbed: list[Event], tmp_path: Path) -> None:
    """Other test images, and other ones of the training images that are not in the subset, change nothing of it."""
    kept, _ = train_val_split(digits.train_labels, 0.1, 400, 0)
    images = np.full_like(digits.train_images, 255)
    images[kept] = digits.train_images[kept]
    other = replace(digits, train_images=images, test_images=np.full_like(digits.test_images, 255))
    events = run(spec_with(), other, tmp_path, stop=stop_after(GAN_STEPS))
    assert rows(events) == rows(undisturbed)[:2]


@pytest.fixture(scope="module")
def trained(digits: Data) -> GanTraining:
    """A GAN after a few seconds on 1438 digits."""
    gan = GAN(width=16, batch_size=32, epochs=10, lr=3e-3)
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)
    stage = GanTraining(small_spec(), gan, images, labels, 0)
    while not stage.complete:
        stage.advance()
    return stage


def test_samples_are_taken_for_their_class_by_a_network_that_never_saw_them(trained: GanTraining, digits: Data) -> None:
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415  importing it costs a second

    real = digits.test_images.reshape(len(digits.test_images), -1) / 255
    independent = KNeighborsClassifier(5).fit(real, digits.test_labels)
    wanted = torch.arange(10).repeat(30)
    made = trained.images(wanted, torch.Generator().manual_seed(1))
    agreement = (independent.predict(made.flatten(1).numpy() / 255) == wanted.numpy()).mean()
    assert agreement > 0.7  # chance is 0.1
    values = trained.end_epoch().values
    assert values["gan_class_agreement"] > 0.7
    assert values["gan_diversity"] > 0.5
    assert trained.complaints == []


def test_the_check_tells_a_collapsed_generator_from_real_images(digits: Data) -> None:
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)

    def real(wanted: torch.Tensor) -> torch.Tensor:
        places = [(labels == label).nonzero().flatten()[-1 - n % 60] for n, label in enumerate(wanted.tolist())]
        return images[torch.stack(places)]

    def constant(wanted: torch.Tensor) -> torch.Tensor:
        return images[:1].expand(len(wanted), -1, -1, -1)

    def one_of_each_class(wanted: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[labels == label][0] for label in wanted.tolist()])

    good = judge(images, labels, real, seed=0)
    assert good.complaints() == []
    assert good.class_agreement > 0.95
    assert good.diversity == pytest.approx(1.0, abs=0.1)
    bad = judge(images, labels, constant, seed=0)
    assert len(bad.complaints()) == 3
    assert bad.class_agreement == pytest.approx(0.1, abs=0.01)
    assert bad.diversity == 0
    right_but_equal = judge(images, labels, one_of_each_class, seed=0)
    assert right_but_equal.class_agreement > 0.8
    assert len(right_but_equal.complaints()) == 2


def test_diversity_by_hand() -> None:
    """Two real images 5 apart, two generated ones 3 apart; the other class is equally diverse in both."""
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    images[1, 0, 0, :2] = torch.tensor([3, 4], dtype=torch.uint8)
    images[3, 0, 0, 0] = 200
    made = images.clone()
    made[1, 0, 0, :2] = torch.tensor([3, 0], dtype=torch.uint8)
    judgement = judge(images, torch.tensor([0, 0, 1, 1]), lambda _: made, seed=0)
    assert judgement.lowest_diversity == pytest.approx(0.6)
    assert judgement.lowest_class == 0
    assert judgement.diversity == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("augmentation", "pointer", "message"),
    [
        ([{"type": "random_crop"}, {"type": "gan"}], "/augmentation/1", "decides what enters the batch"),
        ([{"type": "gan"}, {"type": "gan"}], "/augmentation/1", "there may be one"),
        ([{"type": "gan", "batch_size": 5000}], "/augmentation/0/batch_size", "the training split has"),
    ],
)
def test_what_does_not_go_is_refused(augmentation: list[dict[str, Any]], pointer: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        small_spec(augmentation=augmentation)
    (error,) = caught.value.errors()
    assert error["ctx"]["pointer"] == pointer
    assert message in error["msg"]
