"""What a run costs, against hand calculations and against the parts of the loop that it describes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from cnn import costs, evaluation
from cnn.base import FLOAT_BYTES
from cnn.batches import Batches
from cnn.costs import MEGABYTE, memory, num_steps, steps_per_epoch, work
from cnn.data import Data
from cnn.learner import Learner
from cnn.models import build_network
from cnn.precision import lowered
from cnn.spec import TrainingSpec
from tests.cnn.plain import BATCH, small_spec

BIG = 512
DENSE = [
    {"type": "flatten"},
    {"type": "linear", "out_features": BIG},
    {"type": "relu"},
    {"type": "linear", "out_features": 10},
]


def spec(*layers: Any, **parts: Any) -> TrainingSpec:
    sent = {
        "dataset": {"type": "digits"},
        "model": {"type": "layers", "layers": [*(layers or DENSE)]},
        "optimizer": {"type": "sgd"},
        **parts,
    }
    return TrainingSpec.model_validate_json(json.dumps(sent))


def test_steps_are_those_of_the_loop() -> None:
    for drop_last in (True, False):
        for batch_size, accumulate in ((32, 1), (100, 3)):
            training = {"epochs": 4, "batch_size": batch_size, "accumulate": accumulate, "drop_last": drop_last}
            chosen = spec(split={"num_train": 730}, training=training)
            batches = Batches(
                torch.zeros(730, 1, 1, 1),
                torch.zeros(730, dtype=torch.int64),
                size=batch_size * accumulate,
                drop_last=drop_last,
                augmentation=(),
                num_classes=10,
                seed=0,
            )
            assert steps_per_epoch(chosen) == batches.per_epoch
            assert num_steps(chosen) == 4 * batches.per_epoch


def test_work_of_a_run_by_hand() -> None:
    # 1438 images, of which 144 are for validation; 359 for testing. A step takes 100 of 1000.
    chosen = spec(split={"num_train": 1000}, training={"epochs": 2, "batch_size": 100})
    passes = 3 * 2 * 1000 + 3 * 144 + 359
    values = 64 + BIG + BIG + 10
    assert work(chosen) == costs.Work(20, passes * (64 * BIG + BIG * 10), passes * FLOAT_BYTES * values)
    assert work(chosen, epochs=1).steps == 10


def test_work_of_several_devices_by_hand() -> None:
    # Three passes over 1000 images are shared by three GPUs; 2 over 144 and one over 359 are left to the first device.
    chosen = spec(split={"num_train": 1000}, training={"epochs": 1, "batch_size": 100, "devices": 3})
    macs = 64 * BIG + BIG * 10
    assert work(chosen, device="cuda").macs == (1000 + 2 * 144 + 359) * macs
    assert work(chosen, device="cpu").macs == (3 * 1000 + 3 * (2 * 144 + 359)) * macs


def test_the_batches_of_an_evaluation_are_those_of_evaluate() -> None:
    assert (
        evaluation.MAX_BATCH["cpu"],
        evaluation.MAX_BATCH_VALUES["cpu"],
    ) == (costs.EVALUATION_BATCH, costs.EVALUATION_VALUES)


def test_memory_of_weights_counts_what_the_learner_holds(digits: Data) -> None:
    """Parameters, their gradients and the state of each optimizer."""
    for optimizer in ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "amsgrad", "nadam", "lion", "muon"):
        chosen = spec(optimizer={"type": optimizer}, split={"val_fraction": 0.0})
        learner = Learner(chosen, digits.train_images, digits.train_labels, torch.device("cpu"))
        images, labels = torch.from_numpy(digits.train_images[:64]), torch.from_numpy(digits.train_labels[:64])
        learner.update(1, 1, images, labels, 0.01)
        of_optimizer = (tensor for name, tensor in learner.tensors().items() if name.startswith("optimizer."))
        held = FLOAT_BYTES * sum(tensor.numel() for tensor in of_optimizer if tensor.numel() > 1)
        lookahead = chosen.plan().weight_bytes if optimizer == "nesterov" else 0
        weight_bytes = chosen.plan().weight_bytes
        weights = (2 + costs.EXPORT_COPIES) * weight_bytes + held + lookahead
        assert abs(memory(chosen).weights / weights - 1) < 0.01, optimizer


def test_an_evaluation_holds_the_input_of_a_residual_block_while_its_branch_works() -> None:
    conv = {"type": "conv2d", "out_channels": 8, "kernel_size": 3, "padding": "same"}
    head = [{"type": "flatten"}, {"type": "linear", "out_features": 10}]
    block = {"type": "residual", "layers": [conv, {"type": "relu"}]}
    plain, residual = spec(conv, conv, {"type": "relu"}, *head), spec(conv, block, *head)
    image = FLOAT_BYTES * 8 * 8 * 8 * costs.EVALUATION_BATCH
    assert memory(plain).evaluation == costs.REPORT_BYTES + 2 * image
    assert memory(residual).evaluation == costs.REPORT_BYTES + 3 * image


@pytest.mark.parametrize("model", ["vgg_small", "resnet", "fast_net"])
def test_activations_in_half_precision_are_what_autograd_keeps(model: str) -> None:
    chosen = [
        spec(dataset={"type": "cifar10"}, model={"type": model}, training={"batch_size": 16, "precision": precision})
        for precision in ("float32", "bfloat16")
    ]
    network = build_network(chosen[0])
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    with saved_tensors_hooks(keep, lambda tensor: tensor), lowered("bfloat16", torch.device("cpu")):
        network(images)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    measured = sum(size for place, size in storages.items() if place not in weights)
    expected = [memory(one) for one in chosen]
    copies = (expected[1].weights - expected[0].weights) / chosen[0].plan().weight_bytes
    assert copies == costs.HALF_WEIGHTS
    of_weights = costs.HALF_WEIGHTS * chosen[0].plan().weight_bytes
    assert abs((measured - of_weights) / expected[1].activations - 1) < 0.15


def test_total_is_the_sum_of_the_parts() -> None:
    parts = memory(spec(training={"batch_size": 128}))
    assert parts.total == parts.base + parts.dataset + parts.weights + parts.activations + parts.evaluation
    assert parts.dataset == (1294 + 144) * (64 + 8)
    assert parts.base > 100 * MEGABYTE


def test_each_of_several_devices_takes_memory_but_the_activations_are_shared() -> None:
    one, two = (memory(small_spec(training={"batch_size": BATCH, "devices": devices})) for devices in (1, 2))
    assert (two.base, two.dataset) == (2 * one.base, 2 * one.dataset)
    assert (two.activations, two.evaluation) == (one.activations, one.evaluation)
