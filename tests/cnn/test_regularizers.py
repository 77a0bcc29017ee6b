from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cnn.data import Data
from cnn.learner import Learner
from cnn.regularizers import L1, L2, MaxNorm
from tests.cnn.plain import gradient_of, small_spec, standardized

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 1.0]])


def test_l2_is_half_the_weighted_sum_of_squares() -> None:
    assert L2(weight=0.1).value([WEIGHT, torch.ones(1)]).item() == pytest.approx(0.05 * (9 + 16 + 1 + 1))
    gradient = torch.ones(2, 2)
    L2(weight=0.1).add_gradient([WEIGHT], [gradient])
    torch.testing.assert_close(gradient, torch.tensor([[1.3, 0.6], [1.0, 1.1]]))


def test_l1_is_the_weighted_sum_of_absolute_values_and_flat_at_zero() -> None:
    assert L1(weight=0.1).value([WEIGHT, torch.ones(1)]).item() == pytest.approx(0.1 * (3 + 4 + 1 + 1))
    gradient = torch.ones(2, 2)
    L1(weight=0.1).add_gradient([WEIGHT], [gradient])
    torch.testing.assert_close(gradient, torch.tensor([[1.1, 0.9], [1.0, 1.1]]))


def test_max_norm_scales_the_long_rows_and_no_others() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    MaxNorm(max_value=1.0).project([weight])
    torch.testing.assert_close(weight, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert torch.equal(weight[1:], torch.tensor([[0.3, 0.4], [0.0, 0.0]]))


def test_max_norm_takes_all_that_enters_an_output_channel() -> None:
    weight = torch.full((2, 4, 3, 3), 1.0)
    weight[1] = 0.1
    MaxNorm(max_value=3.0).project([weight])
    torch.testing.assert_close(weight[0], torch.full((4, 3, 3), 0.5))  # its norm was 6
    assert torch.equal(weight[1], torch.full((4, 3, 3), 0.1))


def test_patterns_select_layers() -> None:
    names = ["conv1", "conv2", "fc1", "linear1"]
    assert L2.select(None, names) == names
    assert L2.select(["conv*", "linear1"], names) == ["conv1", "conv2", "linear1"]
    assert L2.select(["CONV1", "nothing"], names) == []


@pytest.mark.usefixtures("float64")
def test_fifty_nesterov_steps_with_penalties_at_the_lookahead_point_and_max_norm(
    digits: Data, batches: list[tuple[Tensor, Tensor]]
) -> None:
    spec = small_spec(
        optimizer={"type": "nesterov", "lr": 0.05, "momentum": 0.9},
        regularizers=[
            {"type": "l1", "weight": 0.01, "layers": ["conv*"]},
            {"type": "l2", "weight": 0.02},
            {"type": "max_norm", "max_value": 0.6, "layers": ["fc1"]},
        ],
    )
    learner = Learner(spec, digits.train_images, digits.train_labels, torch.device("cpu"))
    weights = [parameter.detach().clone() for parameter in learner.network.parameters()]
    velocities = [torch.zeros_like(weight) for weight in weights]
    shortened = 0
    for k, (images, labels) in enumerate(batches, start=1):
        learner.update(1, k, images, labels, 0.05)
        ahead = [w + 0.9 * v for w, v in zip(weights, velocities, strict=True)]
        kernel, kernel_bias, matrix, bias = gradient_of(
            standardized(images, torch.from_numpy(digits.train_images)), labels
        )(ahead)
        kernel = kernel + 0.01 * ahead[0].sign() + 0.02 * ahead[0]
        matrix = matrix + 0.02 * ahead[2]
        velocities = [0.9 * v - 0.05 * g for v, g in zip(velocities, [kernel, kernel_bias, matrix, bias], strict=True)]
        weights = [w + v for w, v in zip(weights, velocities, strict=True)]
        norms = weights[2].square().sum(dim=1, keepdim=True).sqrt()
        shortened += int((norms > 0.6).sum())
        weights[2] = torch.where(norms > 0.6, weights[2] * 0.6 / norms, weights[2])
        for parameter, expected in zip(learner.network.parameters(), weights, strict=True):
            torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-12)
    assert shortened > 50
    kernel, _, matrix, _ = weights
    penalty = 0.01 * kernel.abs().sum() + 0.01 * (kernel.square().sum() + matrix.square().sum())
    assert learner.penalty() == pytest.approx(penalty.item(), abs=1e-12)
