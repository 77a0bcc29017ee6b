from __future__ import annotations

import json
import math

import pytest

from cnn.early_stopping import EarlyStopping, improves

NAN = math.nan


@pytest.mark.parametrize(
    ("monitor", "patience", "min_delta", "values", "stops_after"),
    [
        ("val_loss", 2, 0.0, [3, 2, 1, 0.5], None),
        ("val_loss", 2, 0.0, [3, 2, 2, 2], 4),
        ("val_loss", 1, 0.0, [3, 4], 2),
        ("val_loss", 2, 0.0, [3, 4, 2, 4, 1, 5, 5], 7),
        ("val_loss", 2, 0.25, [3, 2.75, 2.5, 2.3, 2.25], 5),
        ("val_loss", 2, 0.1, [3, 2.95, 2.88], None),
        ("val_loss", 2, 0.1, [3, 2.95, 2.92], 3),
        ("val_accuracy", 2, 0.0, [0.1, 0.2, 0.3], None),
        ("val_accuracy", 2, 0.0, [0.3, 0.2, 0.3], 3),
        ("train_loss", 2, 0.0, [1, NAN, NAN], 3),
        ("train_loss", 2, 0.0, [NAN, 1, 0.5], None),
    ],
)
def test_patience_counts_epochs_without_improvement(
    monitor: str, patience: int, min_delta: float, values: list[float], stops_after: int | None
) -> None:
    spec = EarlyStopping.model_validate({"monitor": monitor, "patience": patience, "min_delta": min_delta})
    counter = spec.build()
    stopped = None
    for epoch, value in enumerate(values, start=1):
        counter.update(value)
        if counter.exhausted and stopped is None:
            stopped = epoch
    assert stopped == stops_after


def test_memory_survives_json() -> None:
    values = [1.0, 0.1 + 0.2, 0.4, 0.5]
    whole = EarlyStopping(patience=3).build()
    parts = EarlyStopping(patience=3).build()
    for value in values:
        whole.update(value)
        successor = EarlyStopping(patience=3).build()
        successor.recall(json.loads(json.dumps(parts.memory())))
        successor.update(value)
        parts = successor
        assert parts.memory() == whole.memory()
    assert not whole.exhausted
    parts.update(0.6)
    assert parts.exhausted


def test_a_tie_is_no_improvement_and_the_first_number_is_one() -> None:
    assert improves("val_loss", 1.0, None)
    assert not improves("val_loss", NAN, None)
    assert not improves("val_loss", 1.0, 1.0)
    assert not improves("val_accuracy", 1.0, 1.0)
