from __future__ import annotations

import pytest
import torch

from cnn.totals import PENDING_VALUES, Totals


def test_means_are_those_of_all_samples_however_many_wait() -> None:
    """Enough minibatches that some were judged and some still wait; of the last ones the targets are probabilities."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(64, 12, generator=generator), torch.randint(12, (64,), generator=generator)) for _ in range(100)
    ]
    assert PENDING_VALUES < sum(logits.numel() for logits, _ in batches) < 2 * PENDING_VALUES
    totals = Totals(torch.device("cpu"))
    for number, (logits, labels) in enumerate(batches):
        targets = labels if number < 90 else torch.nn.functional.one_hot(labels, 12).float() * 0.6
        totals.add(torch.tensor(64.0 * number), logits, targets)
        totals.add_step(torch.tensor(float(number)))
    all_logits, all_labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    rank = (all_logits > all_logits.gather(1, all_labels[:, None])).sum(dim=1)
    expected = {
        "train_loss": 49.5,
        "train_accuracy": int((rank == 0).sum()) / 6400,
        "train_top5_accuracy": int((rank < 5).sum()) / 6400,
        "grad_norm": 49.5,
    }
    assert totals.means() == pytest.approx(expected, abs=1e-12)


def test_sums_are_complete_when_they_are_saved_and_empty_after_a_reset() -> None:
    totals = Totals(torch.device("cpu"))
    totals.add(torch.tensor(3.0), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    assert {name: total.item() for name, total in totals.tensors().items()} == {
        "loss": 3.0,
        "correct": 3,
        "in_top5": 0,
        "seen": 4,
        "grad_norm": 0.0,
        "steps": 0,
    }
    totals.add(torch.tensor(3.0), torch.eye(4), torch.tensor([0, 1, 2, 3]))
    totals.reset()
    assert all(total.item() == 0 for total in totals.tensors().values())
