from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from cnn.data import Data
from cnn.evaluation import evaluate
from cnn.events import Metrics, Result
from cnn.models import build_network
from cnn.report import MAX_CONFUSED
from cnn.training import train
from tests.cnn.plain import small_spec


def test_with_mirror_images_the_mean_of_both_logits_is_judged(digits: Data, tmp_path: Path) -> None:
    spec = small_spec(training={"epochs": 1, "batch_size": 16, "test_time_augmentation": "horizontal_flip"})
    events = list(train(spec, digits, artifacts=tmp_path))
    result = next(event for event in events if isinstance(event, Result))
    metrics = next(event for event in events if isinstance(event, Metrics))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["test_time_augmentation"] == "horizontal_flip"
    assert metrics.values["val_loss"] == report["splits"]["val"]["loss"]

    network = build_network(spec).eval()
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images, labels = torch.from_numpy(digits.test_images), torch.from_numpy(digits.test_labels)
    with torch.no_grad():
        logits = (network(images) + network(images.flip(3))) / 2
    assert result.test_loss == pytest.approx(cross_entropy(logits, labels).item(), abs=1e-6)
    assert result.test_accuracy == pytest.approx((logits.argmax(dim=1) == labels).double().mean().item())
    (worst, *_), others = (report["splits"]["test"]["most_confused"], report["splits"]["val"]["most_confused"])
    wrong = torch.nonzero(logits.argmax(dim=1) != labels).flatten()
    probabilities = (logits[wrong].double().exp() / logits[wrong].double().exp().sum(dim=1, keepdim=True)).amax(dim=1)
    assert worst["index"] == wrong[probabilities.argmax()]
    assert worst["probability"] == pytest.approx(probabilities.max().item(), abs=2e-6)
    assert 0 < len(others) <= MAX_CONFUSED
    without = evaluate(network, network.state_dict(), images, labels)
    assert without.loss != pytest.approx(result.test_loss, abs=1e-4)
    assert evaluate(network, network.state_dict(), images.flip(3), labels, mirror=True).loss == pytest.approx(
        result.test_loss, abs=1e-6
    )
