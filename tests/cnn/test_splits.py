from __future__ import annotations

import numpy as np
import pytest

from cnn.splits import stratified_split, train_val_split

LABELS = np.repeat(np.arange(3), [50, 30, 20])[np.random.default_rng(0).permutation(100)]


def test_every_class_gives_its_share() -> None:
    kept, held_out = stratified_split(LABELS, 0.1, seed=0)
    assert np.bincount(LABELS[held_out]).tolist() == [5, 3, 2]
    assert sorted([*kept, *held_out]) == list(range(100))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()


@pytest.mark.parametrize(("fraction", "counts"), [(0.05, [3, 1, 1]), (0.01, [1]), (0.15, [8, 4, 3]), (0.0, [])])
def test_the_total_is_right_where_shares_are_no_whole_numbers(fraction: float, counts: list[int]) -> None:
    _, held_out = stratified_split(LABELS, fraction, seed=0)
    assert len(held_out) == round(100 * fraction)
    assert np.bincount(LABELS[held_out]).tolist() == counts


def test_the_split_follows_from_its_seed() -> None:
    first = stratified_split(LABELS, 0.3, seed=4)[1]
    assert first.tolist() == stratified_split(LABELS, 0.3, seed=4)[1].tolist()
    assert first.tolist() != stratified_split(LABELS, 0.3, seed=5)[1].tolist()
    assert first.tolist() != stratified_split(LABELS, 0.3, seed=4, purpose="test")[1].tolist()


def test_a_part_of_the_training_split_has_the_shares_of_the_whole() -> None:
    whole, held_out = train_val_split(LABELS, 0.2, None, seed=0)
    part, same = train_val_split(LABELS, 0.2, 8, seed=0)
    assert np.bincount(LABELS[whole]).tolist() == [40, 24, 16]
    assert np.bincount(LABELS[part]).tolist() == [4, 2, 2]
    assert same.tolist() == held_out.tolist()
    assert set(part) <= set(whole)


@pytest.mark.parametrize("num_train", [1, 7, 33, 79, 80])
def test_the_part_has_the_size_that_was_asked_for(num_train: int) -> None:
    part, _ = train_val_split(LABELS, 0.2, num_train, seed=3)
    assert len(set(part)) == num_train
    assert part.tolist() == train_val_split(LABELS, 0.2, num_train, seed=3)[0].tolist()


def test_smaller_parts_lie_in_larger_ones() -> None:
    parts = [set(train_val_split(LABELS, 0.2, num_train, seed=0)[0]) for num_train in (10, 20, 40, 80)]
    assert parts[0] < parts[1] < parts[2] < parts[3]
