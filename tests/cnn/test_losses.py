from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from cnn.errors import TrainingError
from cnn.losses import CrossEntropy

LOGITS = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]], dtype=torch.float64)  # probabilities 1/4 and 3/4
LABELS = torch.tensor([1, 1])
TRAIN = torch.tensor([0, 0, 0, 1])


def test_cross_entropy_is_summed_over_the_samples() -> None:
    assert CrossEntropy().build(TRAIN, 2)(LOGITS, LABELS).item() == pytest.approx(math.log(4 / 3) + math.log(4))


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    expected = (0.1 * math.log(4) + 0.9 * math.log(4 / 3)) + (0.1 * math.log(4 / 3) + 0.9 * math.log(4))
    assert CrossEntropy(label_smoothing=0.2).build(TRAIN, 2)(LOGITS, LABELS).item() == pytest.approx(expected)


def test_class_weights_multiply_the_loss_of_a_sample_by_that_of_its_label() -> None:
    loss = CrossEntropy(class_weights=(2.0, 5.0)).build(TRAIN, 2)
    assert loss(LOGITS, torch.tensor([1, 0])).item() == pytest.approx(5 * math.log(4 / 3) + 2 * math.log(4 / 3))


def test_balanced_weights_are_inverse_to_the_counts_of_the_training_split() -> None:
    # Three labels 0 and one label 1: 4 / (2 · 3) and 4 / (2 · 1).
    loss = CrossEntropy(class_weights="balanced").build(TRAIN, 2)
    assert loss(LOGITS, torch.tensor([1, 0])).item() == pytest.approx((2 + 2 / 3) * math.log(4 / 3))


def test_over_the_training_split_balanced_weights_have_mean_one() -> None:
    logits = torch.zeros(4, 2, dtype=torch.float64)
    assert CrossEntropy(class_weights="balanced").build(TRAIN, 2)(logits, TRAIN).item() == pytest.approx(
        4 * math.log(2)
    )


def test_probabilities_may_stand_for_labels() -> None:
    """-(2 · 0.7 · log 1/4 + 5 · 0.3 · log 3/4), and of the second sample -(2 · 0.1 · log 3/4 + 5 · 0.9 · log 1/4)."""
    loss = CrossEntropy(class_weights=(2.0, 5.0)).build(TRAIN, 2)
    targets = torch.tensor([[0.7, 0.3], [0.1, 0.9]], dtype=torch.float64)
    expected = 1.4 * math.log(4) + 1.5 * math.log(4 / 3) + 0.2 * math.log(4 / 3) + 4.5 * math.log(4)
    assert loss(LOGITS, targets).item() == pytest.approx(expected)


@pytest.mark.parametrize("weights", [None, "balanced", (2.0, 5.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_hot_probabilities_are_labels(
    weights: Literal["balanced"] | tuple[float, ...] | None, smoothing: float
) -> None:
    loss = CrossEntropy(class_weights=weights, label_smoothing=smoothing).build(TRAIN, 2)
    labels = torch.tensor([1, 0])
    one_hot = torch.eye(2, dtype=torch.float64)[labels]
    assert loss(LOGITS, labels).item() == pytest.approx(loss(LOGITS, one_hot).item(), rel=1e-14)


def test_with_smoothing_each_class_counts_by_its_own_weight() -> None:
    loss = CrossEntropy(class_weights=(2.0, 5.0), label_smoothing=0.2).build(TRAIN, 2)
    # q = (0.1, 0.9) for label 1, probabilities 1/4 and 3/4.
    assert loss(LOGITS[:1], LABELS[:1]).item() == pytest.approx(2 * 0.1 * math.log(4) + 5 * 0.9 * math.log(4 / 3))


def test_balanced_weights_need_images_of_every_class() -> None:
    with pytest.raises(TrainingError, match=r"there are none of \[2\]") as caught:
        CrossEntropy(class_weights="balanced").build(TRAIN, 3)
    assert caught.value.code == "class_without_images"
