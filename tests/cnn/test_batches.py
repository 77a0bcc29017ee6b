from __future__ import annotations

from itertools import chain

import pytest
import torch

from cnn.augmentation import RandomCrop
from cnn.batches import Batches

IMAGES = torch.arange(1, 11, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 4, 4).contiguous()
LABELS = torch.arange(10)


def batches_of(size: int, *, drop_last: bool = True, seed: int = 0, padding: int = 0) -> Batches:
    augmentation = [RandomCrop(padding=padding)] if padding else []
    return Batches(IMAGES, LABELS, size=size, drop_last=drop_last, augmentation=augmentation, num_classes=10, seed=seed)


def labels_of(batches: Batches, epoch: int) -> list[list[int]]:
    first = (epoch - 1) * batches.per_epoch + 1
    return [batches.at(epoch, step)[1].tolist() for step in range(first, first + batches.per_epoch)]


def test_an_epoch_takes_every_sample_once() -> None:
    batches = batches_of(4, drop_last=False)
    assert [len(labels) for labels in labels_of(batches, 1)] == [4, 4, 2]
    for epoch in (1, 2, 3):
        assert sorted(chain(*labels_of(batches, epoch))) == list(range(10))


def test_drop_last_leaves_out_what_does_not_fill_a_step() -> None:
    chosen = list(chain(*labels_of(batches_of(4), 1)))
    assert len(set(chosen)) == len(chosen) == 8


def test_the_order_changes_with_epoch_and_seed_alone() -> None:
    first = labels_of(batches_of(10), 1)
    assert first == labels_of(batches_of(10), 1)
    assert first != labels_of(batches_of(10), 2)
    assert first != labels_of(batches_of(10, seed=1), 1)


def test_images_go_with_their_labels() -> None:
    images, labels = batches_of(10).at(1, 1)
    assert images[:, 0, 0, 0].tolist() == (labels + 1).tolist()


def test_a_batch_follows_from_its_number() -> None:
    batches = batches_of(5, padding=2)
    images, _ = batches.at(2, 4)
    for epoch, step in ((1, 1), (3, 5)):
        batches.at(epoch, step)
    assert torch.equal(batches.at(2, 4)[0], images)
    assert torch.equal(batches_of(5, padding=2).at(2, 4)[0], images)


def test_every_step_is_augmented_anew() -> None:
    batches = batches_of(5, padding=2)
    # Which pixels of the batch's n-th image came from outside, whatever the image is.
    outside = [(batches.at(epoch, step)[0] == 0).tolist() for epoch, step in ((1, 1), (1, 2), (2, 3))]
    assert outside[0] != outside[1]
    assert outside[0] != outside[2]


def test_an_epoch_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="one step needs 11 images, but the training split has 10"):
        batches_of(11)
