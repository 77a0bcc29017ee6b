from __future__ import annotations

import json

import pytest

from cnn.augmentation import Augmentation
from cnn.normalization import Normalization
from cnn.optimizers import Optimizer
from cnn.regularizers import Regularizer
from cnn.schedules import Schedule
from cnn.spec import TrainingSpec
from tests.faults.mix import layers_of, members, tag
from tests.faults.reference import Outcome

FAMILIES = {
    "optimizers": members(Optimizer),
    "regularizers": members(Regularizer),
    "augmentations": members(Augmentation),
    "normalizations": members(Normalization),
    "schedules": members(Schedule),
    "normalization layers": layers_of("cnn.normalization_layers"),
    "dropout": layers_of("cnn.dropout"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mix_uses_every_member_of_a_family(family: str, mix: dict[str, TrainingSpec]) -> None:
    text = json.dumps([spec.model_dump(mode="json") for spec in mix.values()])
    assert len(FAMILIES[family]) > 2
    assert {tag(member) for member in FAMILIES[family] if f'"type": "{tag(member)}"' not in text} == set()


def test_early_stopping_watches_each_series_and_stops_a_run(
    mix: dict[str, TrainingSpec], expected: dict[str, Outcome]
) -> None:
    monitors = {spec.early_stopping.monitor for spec in mix.values() if spec.early_stopping is not None}
    assert monitors == {"val_loss", "val_accuracy", "train_loss", "train_accuracy"}
    last = {name: max(row[1] for row in outcome.rows) for name, outcome in expected.items()}
    assert any(last[name] < spec.training.epochs for name, spec in mix.items())
    assert any(last[name] == spec.training.epochs for name, spec in mix.items())
