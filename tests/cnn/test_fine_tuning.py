from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from cnn.data import Data
from cnn.errors import CheckpointInvalid, TrainingError
from cnn.events import Checkpoint, Event, Result, Warning_
from cnn.learner import initialized_network
from cnn.spec import TrainingSpec
from cnn.training import train
from tests.cnn.plain import LAYERS, small_spec

FIRST_LOOK: dict[str, Any] = {"training": {"epochs": 1, "batch_size": 647}, "optimizer": {"type": "sgd", "lr": 1e-30}}


def run(spec: TrainingSpec, data: Data, folder: Path, **arguments: Any) -> list[Event]:
    return list(train(spec, data, checkpoints=folder / "checkpoints", artifacts=folder / "artifacts", **arguments))


@pytest.fixture(scope="module")
def earlier(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The weights of a run, and its result."""
    folder = tmp_path_factory.mktemp("earlier")
    spec = small_spec(optimizer={"type": "adam", "lr": 0.01}, training={"epochs": 3, "batch_size": 64})
    result = run(spec, digits, folder)[-1]
    assert isinstance(result, Result)
    return folder / "artifacts" / "model.safetensors", result


def test_the_same_network_goes_on_where_the_other_ended(
    earlier: tuple[Path, Result], digits: Data, tmp_path: Path
) -> None:
    path, result = earlier
    events = run(small_spec(**FIRST_LOOK), digits, tmp_path, init_weights=path)
    last = events[-1]
    assert isinstance(last, Result)
    assert (last.test_loss, last.test_accuracy) == (result.test_loss, result.test_accuracy)
    assert not [event for event in events if isinstance(event, Warning_)]
    told = json.loads((tmp_path / "artifacts" / "report.json").read_text())["init_weights"]
    assert told["taken"] == ["conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"]
    assert (told["missing"], told["unused"], told["other_shape"]) == ([], [], {})


def test_what_does_not_match_is_initialized_and_reported(
    earlier: tuple[Path, Result], digits: Data, tmp_path: Path
) -> None:
    path, _ = earlier
    head = [
        {"type": "linear", "name": "fc1", "out_features": 16},
        {"type": "linear", "name": "fc2", "out_features": 10},
    ]
    spec = small_spec(model={"type": "layers", "layers": [*LAYERS[:-1], *head]}, **FIRST_LOOK)
    events = run(spec, digits, tmp_path, init_weights=path)
    warning = next(event.message for event in events if isinstance(event, Warning_))
    assert "took over 2 tensors" in warning
    assert "missing there: fc2.weight, fc2.bias" in warning
    assert "fc1.bias ((10,) there, (16,) here)" in warning
    told = json.loads((tmp_path / "artifacts" / "report.json").read_text())["init_weights"]
    assert told["taken"] == ["conv1.weight", "conv1.bias"]
    assert told["other_shape"] == {"fc1.weight": [[10, 64], [16, 64]], "fc1.bias": [[10], [16]]}
    weights = load_file(tmp_path / "artifacts" / "model.safetensors")
    fresh = initialized_network(spec).state_dict()
    assert torch.equal(weights["conv1.weight"], load_file(path)["conv1.weight"])
    assert torch.equal(weights["fc1.weight"], fresh["fc1.weight"])


def test_statistics_of_the_input_are_the_runs_own(earlier: tuple[Path, Result], digits: Data, tmp_path: Path) -> None:
    tensors = load_file(earlier[0])
    tensors["normalization.mean"] += 100
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, tmp_path / "other.safetensors")
    events = run(small_spec(**FIRST_LOOK), digits, tmp_path, init_weights=tmp_path / "other.safetensors")
    warning = next(event.message for event in events if isinstance(event, Warning_))
    assert warning.endswith("not used: extra")
    mean = load_file(tmp_path / "artifacts" / "model.safetensors")["normalization.mean"]
    assert torch.equal(mean, load_file(earlier[0])["normalization.mean"])


def test_files_that_are_of_no_use_are_refused(digits: Data, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no weights")
    save_file({"conv9.weight": torch.zeros(3)}, tmp_path / "others")
    for name, code in (("text", "unreadable"), ("missing", "unreadable"), ("others", "do_not_fit")):
        with pytest.raises(TrainingError) as caught:
            list(train(small_spec(), digits, init_weights=tmp_path / name))
        assert caught.value.code == f"initial_weights_{code}"
    with pytest.raises(TrainingError, match="the weights of job_1 are not at hand"):
        list(train(small_spec(training={"init_from": "job_1"}), digits))


def test_a_fine_tuned_run_resumes_with_the_same_bytes(
    earlier: tuple[Path, Result], digits: Data, tmp_path: Path
) -> None:
    spec = small_spec(
        optimizer={"type": "muon"},
        schedule={"type": "reduce_on_plateau", "patience": 1, "min_delta": 10.0, "warmup_epochs": 0.5},
        training={"epochs": 4, "batch_size": 200, "frozen": ["conv*"], "init_from": "job_1"},
    )
    expected = run(spec, digits, tmp_path / "undisturbed", init_weights=earlier[0])
    answers = iter([False] * 15)
    stopped = run(spec, digits, tmp_path, init_weights=earlier[0], stop=lambda: next(answers, True))
    path = next(event.path for event in reversed(stopped) if isinstance(event, Checkpoint))
    assert path.name == "step-15"
    resumed = run(spec, digits, tmp_path / "resumed", init_weights=earlier[0], resume_from=path)
    assert resumed[-1] == expected[-1]
    for file in (tmp_path / "undisturbed" / "artifacts").iterdir():
        assert file.read_bytes() == (tmp_path / "resumed" / "artifacts" / file.name).read_bytes()
    # The bytes of the file are part of what the run is.
    other = load_file(earlier[0])
    other["fc1.bias"] += 1
    save_file(other, tmp_path / "other")
    with pytest.raises(CheckpointInvalid, match="belongs to"):
        run(spec, digits, tmp_path / "other-run", init_weights=tmp_path / "other", resume_from=path)


@pytest.mark.parametrize(
    ("frozen", "pointer"), [(["conv1", "conv2*"], "/training/frozen/1"), (["*"], "/training/frozen")]
)
def test_patterns_without_sense_are_refused(frozen: list[str], pointer: str) -> None:
    with pytest.raises(ValidationError) as caught:
        small_spec(training={"frozen": frozen})
    assert caught.value.errors()[0]["ctx"]["pointer"] == pointer
