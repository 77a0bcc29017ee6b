from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cnn import training
from cnn.checkpoints import TENSORS, generations
from cnn.data import Data
from cnn.errors import CheckpointInvalid, Diverged
from cnn.events import Artifact, Checkpoint, Event, Metrics, Phase, Progress, Result, Stopped, Warning_
from cnn.models import build_network
from cnn.optimizers import Optimizer
from cnn.schedules import Schedule
from cnn.spec import TrainingSpec
from cnn.splits import stratified_split
from cnn.training import train
from tests.cnn.plain import small_spec

OPTIMIZERS = [member.model_fields["type"].default for member in get_args(get_args(Optimizer.__value__)[0])]
SCHEDULES = [member.model_fields["type"].default for member in get_args(get_args(Schedule.__value__)[0])]

EVERYTHING: dict[str, Any] = {
    "augmentation": [
        {"type": "random_crop", "padding": 1},
        {"type": "horizontal_flip"},
        {"type": "translate", "max_shift": 0.1},
    ],
    "model": {
        "type": "layers",
        "layers": [
            {"type": "conv2d", "name": "conv1", "out_channels": 4, "kernel_size": 3, "padding": "same"},
            {"type": "batch_norm"},
            {"type": "relu"},
            {"type": "conv2d", "name": "conv2", "out_channels": 4, "kernel_size": 3},
            {"type": "relu"},
            {"type": "max_pool2d", "kernel_size": 2},
            {"type": "flatten"},
            {"type": "linear", "name": "fc1", "out_features": 16},
            {"type": "relu"},
            {"type": "dropout", "keep_prob": 0.7, "scaling": "test"},
            {"type": "linear", "name": "fc2", "out_features": 10},
        ],
    },
    "regularizers": [
        {"type": "l2"},
        {"type": "l1", "layers": ["conv*"]},
        {"type": "max_norm", "max_value": 0.7, "layers": ["fc1"]},
    ],
    "schedule": {"type": "one_cycle"},
    "training": {
        "epochs": 4,
        "batch_size": 100,
        "accumulate": 2,
        "drop_last": False,
        "max_grad_norm": 2.0,
        "ema": {"decay": 0.9},
    },
    "early_stopping": {"monitor": "val_accuracy", "patience": 2},
}
STEPS_PER_EPOCH = 7  # 1438 images less 144, in steps of 200


def stop_after(num_steps: int) -> Callable[[], bool]:
    """True from the question before step `num_steps` + 1 of this call."""
    questions: Iterator[bool] = iter([False] * num_steps)
    return lambda: next(questions, True)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def rows(events: list[Event]) -> list[tuple[int, int, dict[str, float]]]:
    return [(event.epoch, event.step, dict(event.values)) for event in of(Metrics, events)]


def run(spec: TrainingSpec, data: Data, folder: Path, **arguments: Any) -> list[Event]:
    return list(train(spec, data, checkpoints=folder / "checkpoints", artifacts=folder / "artifacts", **arguments))


@pytest.fixture(scope="module", params=OPTIMIZERS)
def undisturbed(
    request: pytest.FixtureRequest, digits: Data, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingSpec, list[Event], Path]:
    spec = small_spec(optimizer={"type": request.param}, **EVERYTHING)
    folder = tmp_path_factory.mktemp(request.param)
    return spec, run(spec, digits, folder), folder


def test_equal_runs_give_equal_bytes(
    undisturbed: tuple[TrainingSpec, list[Event], Path], digits: Data, tmp_path: Path
) -> None:
    spec, events, _ = undisturbed
    torch.rand(3)
    again = run(spec, digits, tmp_path)
    assert rows(again) == rows(events)
    assert again[-1] == events[-1]
    for artifact in of(Artifact, events):
        assert digest(artifact.path) == digest(tmp_path / "artifacts" / artifact.name)


@pytest.mark.parametrize("stops", [[3], [7, 0, 1], [10, 9], [1] * 28])
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bytes(
    stops: list[int], undisturbed: tuple[TrainingSpec, list[Event], Path], digits: Data, tmp_path: Path
) -> None:
    spec, events, _ = undisturbed
    resume_from, steps = None, 0
    for attempt, num_steps in enumerate(stops):
        stopped = run(spec, digits, tmp_path / str(attempt), stop=stop_after(num_steps), resume_from=resume_from)
        if isinstance(stopped[-1], Result):
            break
        steps += num_steps
        assert stopped[-1] == Stopped(math.ceil(steps / STEPS_PER_EPOCH), steps)
        assert isinstance(stopped[-2], Checkpoint)
        assert not of(Warning_, stopped)
        resume_from = stopped[-2].path
    last = run(spec, digits, tmp_path / "last", resume_from=resume_from)
    assert rows(last) == rows(events)
    assert last[-1] == events[-1]
    for artifact in of(Artifact, events):
        assert digest(artifact.path) == digest(tmp_path / "last" / "artifacts" / artifact.name)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_resumed_in_the_middle(name: str, digits: Data, tmp_path: Path) -> None:
    fields = {"patience": 1, "min_delta": 10.0} if name == "reduce_on_plateau" else {}
    spec = small_spec(
        optimizer={"type": "momentum"},
        schedule={"type": name, "warmup_epochs": 1.5, **fields},
        training={"epochs": 4, "batch_size": 200},
    )
    expected = run(spec, digits, tmp_path / "undisturbed")
    stopped = run(spec, digits, tmp_path, stop=stop_after(15))  # of 24: in the third epoch
    events = run(spec, digits, tmp_path / "resumed", resume_from=of(Checkpoint, stopped)[-1].path)
    assert rows(events) == rows(expected)
    assert events[-1] == expected[-1]
    rates = [row.values["lr"] for row in of(Metrics, events)]
    assert rates[0] <= 0.05 * 6 / 9 + 1e-12  # the sixth step of nine of warm-up
    if name == "reduce_on_plateau":  # the first epoch is the best, every other one without improvement
        assert rates[1:] == pytest.approx([0.05, 0.005, 0.0005])


def test_a_run_that_was_ended_while_it_finished_repeats_no_epoch(digits: Data, tmp_path: Path) -> None:
    spec = small_spec(training={"epochs": 3, "batch_size": 200}, early_stopping={"min_delta": 100.0, "patience": 1})
    expected = run(spec, digits, tmp_path / "undisturbed")
    events = train(spec, digits, checkpoints=tmp_path / "checkpoints", artifacts=tmp_path / "artifacts")
    for event in events:
        if event == Phase("exporting"):
            break
    events.close()  # type: ignore[attr-defined]
    newest = generations(tmp_path / "checkpoints")[0]
    assert newest.name == "step-12"
    resumed = run(spec, digits, tmp_path, resume_from=newest)
    assert not of(Checkpoint, resumed)
    assert [event.phase for event in of(Phase, resumed)] == ["preparing_data", "training", "evaluating", "exporting"]
    assert of(Progress, resumed) == [Progress(2, 12, 3, 18)]
    assert resumed[-1] == expected[-1]
    for artifact in of(Artifact, expected):
        assert digest(artifact.path) == digest(tmp_path / "artifacts" / artifact.name)


def test_a_run_that_is_left_at_any_event_can_be_resumed(digits: Data, tmp_path: Path) -> None:
    spec = small_spec(optimizer={"type": "nesterov"}, **EVERYTHING)
    expected = run(spec, digits, tmp_path / "undisturbed")
    for number in range(3, len(expected), 3):
        folder = tmp_path / str(number)
        events = train(spec, digits, checkpoints=folder / "checkpoints", artifacts=folder / "artifacts")
        for _ in range(number):
            next(events)
        events.close()  # type: ignore[attr-defined]
        saved = generations(folder / "checkpoints")
        last = run(spec, digits, folder, resume_from=saved[0] if saved else None)
        assert rows(last) == rows(expected)
        assert last[-1] == expected[-1]
        assert digest(folder / "artifacts" / "model.safetensors") == digest(
            tmp_path / "undisturbed" / "artifacts" / "model.safetensors"
        )


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(digits: Data, tmp_path: Path) -> None:
    spec = small_spec(**EVERYTHING)
    expected = run(spec, digits, tmp_path / "undisturbed")
    run(spec, digits, tmp_path / "stopped", stop=stop_after(10))
    newest, older = generations(tmp_path / "stopped" / "checkpoints")
    assert (newest.name, older.name) == ("step-10", "step-7")
    with (newest / TENSORS).open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x55")
    events = run(spec, digits, tmp_path / "resumed", resume_from=newest)
    assert "step-10" in of(Warning_, events)[0].message
    assert rows(events) == rows(expected)
    (older / TENSORS).unlink()
    with pytest.raises(CheckpointInvalid, match=r"no checkpoint in .* up to step-10 can be read"):
        run(spec, digits, tmp_path / "nothing", resume_from=newest)


def test_a_checkpoint_of_another_spec_or_dataset_is_refused(digits: Data, tmp_path: Path) -> None:
    events = run(small_spec(), digits, tmp_path, stop=stop_after(2))
    path = of(Checkpoint, events)[-1].path
    with pytest.raises(CheckpointInvalid, match="belongs to"):
        run(small_spec(optimizer={"type": "adam"}), digits, tmp_path / "spec", resume_from=path)
    with pytest.raises(CheckpointInvalid, match="belongs to"):
        run(small_spec(), replace(digits, digest="sha256:0"), tmp_path / "data", resume_from=path)


def test_another_number_of_threads_is_told_on_resuming(digits: Data, tmp_path: Path) -> None:
    path = of(Checkpoint, run(small_spec(), digits, tmp_path, stop=stop_after(2)))[-1].path
    torch.set_num_threads(2)
    try:
        events = run(small_spec(), digits, tmp_path / "two", resume_from=path, stop=stop_after(0))
    finally:
        torch.set_num_threads(1)
    assert "'threads': 1" in of(Warning_, events)[0].message
    assert "'threads': 2" in of(Warning_, events)[0].message


def test_events_come_in_order(digits: Data, tmp_path: Path) -> None:
    events = run(small_spec(training={"epochs": 2, "batch_size": 647}), digits, tmp_path)
    kinds = [event.phase if isinstance(event, Phase) else type(event).__name__ for event in events]
    assert kinds == [
        *("preparing_data", "training", "Progress"),
        *("Progress", "Metrics", "Checkpoint") * 2,
        *("evaluating", "exporting", *("Artifact",) * 14, "Result"),
    ]
    assert of(Progress, events) == [Progress(0, 0, 2, 4), Progress(1, 2, 2, 4), Progress(2, 4, 2, 4)]
    assert [(event.epoch, event.step) for event in of(Metrics, events)] == [(1, 2), (2, 4)]
    assert [event.path.name for event in of(Checkpoint, events)] == ["step-2", "step-4"]
    assert all(event.timings["images_per_second"] > 0 for event in of(Metrics, events))


def test_without_folders_nothing_is_written(digits: Data) -> None:
    events = list(train(small_spec(training={"epochs": 1}), digits))
    assert not of(Checkpoint, events)
    assert not of(Artifact, events)
    assert isinstance(list(train(small_spec(), digits, stop=stop_after(1)))[-1], Stopped)


@pytest.mark.parametrize("batch_size", [1, 7, 359])
def test_the_file_gives_the_reported_test_accuracy_to_the_last_digit(
    batch_size: int, undisturbed: tuple[TrainingSpec, list[Event], Path], digits: Data
) -> None:
    _, events, folder = undisturbed
    spec = TrainingSpec.model_validate_json((folder / "artifacts" / "spec.json").read_text())
    network = build_network(spec)
    network.load_state_dict(load_file(folder / "artifacts" / "model.safetensors"))
    network.eval()
    images, labels = torch.from_numpy(digits.test_images), torch.from_numpy(digits.test_labels)
    with torch.no_grad():
        logits = torch.cat([network(batch) for batch in images.split(batch_size)])  # type: ignore[no-untyped-call]
    result = of(Result, events)[0]
    assert result.test_accuracy == int((logits.argmax(1) == labels).sum()) / len(labels)
    loss = torch.nn.functional.cross_entropy(logits.double(), labels).item()
    assert result.test_loss == pytest.approx(loss, abs=1e-6)


def test_a_small_network_learns_digits(digits: Data) -> None:
    spec = small_spec(optimizer={"type": "nesterov", "lr": 0.05}, training={"epochs": 15, "batch_size": 32})
    events = list(train(spec, digits))
    result = of(Result, events)[0]
    assert result.test_accuracy > 0.94
    accuracies = [event.values["train_accuracy"] for event in of(Metrics, events)]
    assert accuracies[-1] > 0.99 > accuracies[0]


def test_the_best_weights_are_delivered(digits: Data, tmp_path: Path) -> None:
    def spec_of(epochs: int) -> TrainingSpec:
        return small_spec(
            optimizer={"type": "nesterov"},
            training={"epochs": epochs, "batch_size": 32},
            early_stopping={"monitor": "val_accuracy", "patience": 100},
        )

    events = run(spec_of(15), digits, tmp_path)
    best = max(of(Metrics, events), key=lambda row: row.values["val_accuracy"])  # of equals the first
    result = of(Result, events)[0]
    assert (result.weights, result.epoch, result.step) == ("best", best.epoch, best.step)
    assert best.epoch < 15
    # They are those with which a run of so many epochs ends.
    shorter = run(spec_of(best.epoch), digits, tmp_path / "shorter")
    assert of(Result, shorter)[0] == result
    assert digest(tmp_path / "artifacts" / "model.safetensors") == digest(
        tmp_path / "shorter" / "artifacts" / "model.safetensors"
    )


@pytest.mark.parametrize(
    "parts", [{"split": {"val_fraction": 0.0}}, {"early_stopping": {"restore_best_weights": False, "patience": 9}}]
)
def test_else_the_last_weights_are_delivered(parts: dict[str, Any], digits: Data) -> None:
    spec = small_spec(optimizer={"type": "sgd", "lr": 1.5}, training={"epochs": 4, "batch_size": 32}, **parts)
    events = list(train(spec, digits))
    result = of(Result, events)[0]
    assert (result.weights, result.epoch) == ("last", 4)
    assert ("val_loss" in of(Metrics, events)[0].values) == ("split" not in parts)


def test_early_stopping_ends_the_run(digits: Data) -> None:
    spec = small_spec(
        optimizer={"type": "sgd", "lr": 0.1},
        early_stopping={"monitor": "val_loss", "patience": 2, "min_delta": 100.0},
        training={"epochs": 50, "batch_size": 64},
    )
    events = list(train(spec, digits))
    assert [event.epoch for event in of(Metrics, events)] == [1, 2, 3]
    assert of(Result, events)[0].epoch == 3  # the best by val_loss, however small its lead


def test_divergence_names_step_and_layer_and_keeps_the_last_good_weights(digits: Data, tmp_path: Path) -> None:
    spec = small_spec(optimizer={"type": "sgd", "lr": 1e6}, training={"epochs": 3, "batch_size": 32})
    events: list[Event] = []
    with pytest.raises(Diverged) as caught:
        events.extend(train(spec, digits, artifacts=tmp_path))
    error = caught.value
    assert (error.code, error.blame) == ("diverged", "user")
    assert error.layer in ("conv1", "fc1")
    assert f"step {error.step}, first seen in layer {error.layer}" in error.message
    artifact = of(Artifact, events)[0]
    assert (artifact.name, artifact.step) == ("last_good.safetensors", error.step - 1)
    assert all(tensor.isfinite().all() for tensor in load_file(artifact.path).values())


def test_a_validation_loss_that_is_not_finite_ends_no_run(digits: Data, tmp_path: Path) -> None:
    """One step of an enormous size: the gradient before it was finite, the logits after it are not."""
    layers = [{"type": "flatten"}, *({"type": "linear", "out_features": 10} for _ in range(8))]
    spec = small_spec(
        model={"type": "layers", "layers": layers},
        optimizer={"type": "lion", "lr": 1e6},
        training={"epochs": 1, "batch_size": 1294},
    )
    events = run(spec, digits, tmp_path)
    assert not math.isfinite(of(Metrics, events)[0].values["val_loss"])
    result = of(Result, events)[0]
    assert not math.isfinite(result.test_loss)
    report = json.loads((tmp_path / "artifacts" / "report.json").read_text())
    assert report["splits"]["val"]["loss"] is report["splits"]["test"]["loss"] is None


def test_the_report_is_of_the_delivered_weights_on_both_splits(
    undisturbed: tuple[TrainingSpec, list[Event], Path],
) -> None:
    _, events, folder = undisturbed
    report = json.loads((folder / "artifacts" / "report.json").read_text())
    result = of(Result, events)[0]
    delivered = next(row for row in of(Metrics, events) if row.epoch == result.epoch)
    assert (report["weights"], report["epoch"], report["step"]) == (result.weights, result.epoch, result.step)
    assert report["splits"]["test"]["loss"] == result.test_loss
    assert report["splits"]["test"]["accuracy"] == result.test_accuracy
    for key in ("loss", "accuracy", "top5_accuracy"):
        assert report["splits"]["val"][key] == delivered.values[f"val_{key}"]
    for split, number in (("test", 359), ("val", 144)):
        matrix = np.array(report["splits"][split]["confusion_matrix"])
        assert matrix.sum() == number
        assert matrix.trace() / number == report["splits"][split]["accuracy"]
    assert set(delivered.values) == {
        *("train_loss", "train_accuracy", "train_top5_accuracy", "val_loss", "val_accuracy", "val_top5_accuracy"),
        *("lr", "penalty", "grad_norm", "weight_norm", "zero_share", "near_zero_share"),
    }


def test_statistics_come_from_the_training_split_alone(digits: Data, tmp_path: Path) -> None:
    """Other pictures in the validation and test splits change no weight and no statistic."""
    spec = small_spec(training={"epochs": 1}, early_stopping={"restore_best_weights": False})
    expected = run(spec, digits, tmp_path / "a")
    _, held_out = stratified_split(digits.train_labels, 0.1, 0)
    images = np.array(digits.train_images)
    images[held_out] = 255
    other = run(spec, replace(digits, train_images=images, test_images=digits.test_images[::-1].copy()), tmp_path / "b")
    assert digest(tmp_path / "a" / "artifacts" / "model.safetensors") == digest(
        tmp_path / "b" / "artifacts" / "model.safetensors"
    )
    assert of(Result, other) != of(Result, expected)


def test_checkpoints_inside_an_epoch_are_as_good_as_others(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(optimizer={"type": "adam"}, **EVERYTHING)
    expected = run(spec, digits, tmp_path / "undisturbed")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "CHECKPOINT_COSTS", 0)
    events = train(spec, digits, checkpoints=tmp_path / "checkpoints")
    path = next(event.path for event in events if isinstance(event, Checkpoint) and event.step == 11)
    events.close()  # type: ignore[attr-defined]
    last = run(spec, digits, tmp_path / "resumed", resume_from=path)
    assert rows(last) == rows(expected)
    assert last[-1] == expected[-1]


def test_a_large_checkpoint_is_not_written_at_the_end_of_every_short_epoch(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(training={"epochs": 4, "batch_size": 200})
    monkeypatch.setattr(training, "CHECKPOINT_COSTS", 10**9)
    assert len(of(Checkpoint, run(spec, digits, tmp_path / "small"))) == 4
    monkeypatch.setattr(training, "SMALL_CHECKPOINT_BYTES", 0)
    events = run(spec, digits, tmp_path)
    # The last, so that the end of the run can be repeated without an epoch.
    assert [event.epoch for event in of(Checkpoint, events)] == [4]
    monkeypatch.setattr(training, "CHECKPOINT_MAX_SECONDS", 0.0)
    often = run(spec, digits, tmp_path / "slow")
    assert [event.epoch for event in of(Checkpoint, often)] == [1, 2, 3, 4]
    resumed = run(spec, digits, tmp_path, resume_from=of(Checkpoint, often)[-2].path)
    assert rows(resumed) == rows(events)
    assert resumed[-1] == events[-1]


def test_the_best_weights_are_stored_once_and_come_back(digits: Data, tmp_path: Path) -> None:
    """The first epoch is the best one, as the steps are far too large: at its end the best weights are those of now."""
    spec = small_spec(**{**EVERYTHING, "optimizer": {"type": "adam", "lr": 3.0}, "regularizers": []})
    expected = run(spec, digits, tmp_path / "undisturbed")
    assert expected[-1].epoch == 1  # type: ignore[union-attr]
    for num_steps, stores_best in ((STEPS_PER_EPOCH, False), (STEPS_PER_EPOCH + 1, True)):
        folder = tmp_path / str(num_steps)
        checkpoint = of(Checkpoint, run(spec, digits, folder, stop=stop_after(num_steps)))[-1]
        stored = load_file(checkpoint.path / TENSORS)
        assert any(name.startswith("best.") for name in stored) == stores_best
        resumed = run(spec, digits, folder, resume_from=checkpoint.path)
        assert resumed[-1] == expected[-1]
        weights = [of(Artifact, events)[0].path for events in (resumed, expected)]
        assert digest(weights[0]) == digest(weights[1])
