from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cnn.events import Metrics
from cnn.export import export
from cnn.report import AVERAGING
from cnn.spec import TrainingSpec
from tests.cnn.plain import small_spec

WEIGHTS = {
    "conv1.weight": torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last),
    "fc1.bias": torch.randn(4),
    "norm.num_batches_tracked": torch.tensor(3),
}
METRICS = [
    Metrics(1, 10, {"train_loss": 0.1 + 0.2, "lr": 0.5}, {"seconds": 1.0}),
    Metrics(2, 20, {"train_loss": float("nan"), "lr": 1e-9}, {"seconds": 2.0}),
    Metrics(3, 30, {"lr": 1e-9, "penalty": 2.0}, {"seconds": 2.0}),
]
REPORT: dict[str, Any] = {"weights": "best", "splits": {"test": {"confusion_matrix": [[1] * 10] * 10}}}


def test_files_can_be_read_back(tmp_path: Path) -> None:
    spec = small_spec()
    artifacts = {artifact.name: artifact for artifact in export(tmp_path / "out", spec, WEIGHTS, METRICS, REPORT, 20)}
    assert list(artifacts) == [
        *("model.safetensors", "spec.json", "labels.json", "metrics.csv", "events.out.tfevents", "report.json"),
        "confusion_matrix.png",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(artifacts)
    assert {artifact.step for artifact in artifacts.values()} == {20}
    loaded = load_file(artifacts["model.safetensors"].path)
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)
    assert TrainingSpec.model_validate_json(artifacts["spec.json"].path.read_text()) == spec
    assert json.loads(artifacts["labels.json"].path.read_text()) == list("0123456789")
    assert artifacts["metrics.csv"].path.read_text().splitlines() == [
        "epoch,step,train_loss,lr,penalty",
        "1,10,0.30000000000000004,0.5,",
        "2,20,nan,1e-09,",
        "3,30,,1e-09,2.0",
    ]
    report = json.loads(artifacts["report.json"].path.read_text())
    assert report == {**REPORT, "averaging": AVERAGING}
    assert artifacts["confusion_matrix.png"].path.read_bytes().startswith(b"\x89PNG")


def test_equal_runs_give_equal_bytes_whatever_the_layout_of_the_tensors(tmp_path: Path) -> None:
    rearranged = {name: WEIGHTS[name].clone().contiguous() for name in reversed(WEIGHTS)}
    for folder, weights in (("a", WEIGHTS), ("b", rearranged)):
        for _ in export(tmp_path / folder, small_spec(), weights, METRICS, REPORT, 20):
            pass
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
