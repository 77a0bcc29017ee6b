from __future__ import annotations

import math

import torch
from torch import Tensor

from cnn.best_epoch import BestEpoch


def weights_of(value: float) -> dict[str, Tensor]:
    return {"conv1.weight": torch.full((2, 3, 2, 2), value).contiguous(memory_format=torch.channels_last)}


def after(*losses: float) -> tuple[BestEpoch, dict[str, Tensor]]:
    """What is best after epochs of ten steps with these losses; and the weights of now, which were each epoch's."""
    best, weights = BestEpoch("val_loss"), weights_of(0.0)
    for epoch, loss in enumerate(losses, start=1):
        weights["conv1.weight"].fill_(epoch)
        best.update({"val_loss": loss}, epoch, 10 * epoch, weights)
    return best, weights


def test_the_weights_of_the_best_epoch_are_kept_while_those_of_the_run_change() -> None:
    best, weights = after(0.5, 0.2, math.nan, 0.2)
    assert (best.epoch, best.step) == (2, 20)
    assert best.weights is not None
    assert torch.equal(best.weights["conv1.weight"], weights_of(2.0)["conv1.weight"])
    assert torch.equal(weights["conv1.weight"], weights_of(4.0)["conv1.weight"])


def test_nothing_is_best_without_a_series_or_a_number() -> None:
    unwatched = BestEpoch(None)
    unwatched.update({"val_loss": 0.1}, 1, 10, weights_of(1.0))
    for best in (unwatched, after(math.nan)[0]):
        assert best.weights is None
        assert best.memory() is None
        assert best.tensors(10) == {}
        best.recall(None, {}, 10, weights_of(1.0))
        assert best.weights is None


def test_it_goes_on_from_a_checkpoint_in_which_weights_stand_once() -> None:
    for losses, stored in (((0.5, 0.2), []), ((0.2, 0.5), ["best.conv1.weight"])):
        best, weights = after(*losses)
        tensors = {name: tensor.contiguous() for name, tensor in best.tensors(20).items()}
        assert list(tensors) == stored
        again = BestEpoch("val_loss")
        again.recall(best.memory(), tensors, 20, weights)
        weights["conv1.weight"].zero_()
        assert best.weights is not None
        assert again.weights is not None
        assert again.memory() == best.memory()
        assert torch.equal(again.weights["conv1.weight"], best.weights["conv1.weight"])
        assert again.weights["conv1.weight"].stride() == best.weights["conv1.weight"].stride()
        again.update({"val_loss": 0.3}, 3, 30, weights)
        assert again.epoch == best.epoch
