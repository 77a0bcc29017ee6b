"""Every augmentation in a run: it trains, and a run that was interrupted ends with the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnn.checkpoints import generations
from cnn.events import Artifact, Event, Metrics, Result
from cnn.spec import TrainingSpec
from cnn.totals import Totals
from cnn.training import train
from tests.cnn.plain import small_spec
from tests.cnn.test_augmentation import MEMBERS


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset of 120 pictures in colour, 8 × 8, of ten classes."""
    path = tmp_path_factory.mktemp("colours") / "colours.npz"
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 10
    np.savez(path, images=generator.integers(0, 256, (120, 8, 8, 3), np.uint8), labels=labels)
    return {"type": "npz", "path": str(path), "test_fraction": 0.2}


def run(spec: TrainingSpec, folder: Path, data_dir: Path, **options: Any) -> list[Event]:
    data = spec.dataset.load(data_dir)
    return list(train(spec, data, checkpoints=folder / "checkpoints", artifacts=folder / "artifacts", **options))


def contents(events: list[Event]) -> dict[str, bytes]:
    return {event.name: event.path.read_bytes() for event in events if isinstance(event, Artifact)}


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.model_fields["type"].default)
def test_every_member_trains_and_resumes_to_the_same_bytes(
    member: type[Any], colours: dict[str, Any], tmp_path: Path
) -> None:
    spec = small_spec(
        dataset=colours,
        augmentation=[{"type": member.model_fields["type"].default}],
        training={"batch_size": 16, "epochs": 2},
    )
    whole = run(spec, tmp_path / "whole", tmp_path)
    answers = iter([False] * 3 + [True] * 100)
    run(spec, tmp_path / "parts", tmp_path, stop=lambda: next(answers))
    saved = generations(tmp_path / "parts" / "checkpoints")[0]
    assert saved.name == "step-3"
    resumed = run(spec, tmp_path / "parts", tmp_path, resume_from=saved)
    assert isinstance(whole[-1], Result)
    assert contents(whole) == contents(resumed)
    metrics = [event.values for event in whole if isinstance(event, Metrics)]
    assert metrics == [event.values for event in resumed if isinstance(event, Metrics)]
    assert contents(whole)["augmentation.png"].startswith(b"\x89PNG")


def test_soft_labels_reach_the_loss_and_the_larger_share_counts_as_right() -> None:
    totals = Totals(torch.device("cpu"))
    logits = torch.tensor([[5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]])
    targets = torch.tensor([[0.6, 0.4, 0], [0.6, 0.4, 0], [0, 0, 1.0]])
    loss = small_spec().loss.build(torch.arange(3), 3)(logits, targets)
    totals.add(loss, logits, targets)
    # log Σ exp z - Σ_c q_c z_c: 5.013387 - 3, 5.013387 - 2 and 5.013387 - 5.
    assert float(loss) == pytest.approx(3 * 5.0133859 - 10, abs=1e-4)
    assert int(totals.tensors()["correct"]) == 2
