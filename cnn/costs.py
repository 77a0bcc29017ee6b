"""What a run costs, from its spec alone: steps, memory and work, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cnn.adaptive_optimizers import Adadelta, Adam, AdamW, AMSGrad, NAdam
from cnn.base import FLOAT_BYTES
from cnn.gradient_descent import SGD, Nesterov
from cnn.optimizers import Optimizer
from cnn.spec import TrainingSpec

MEGABYTE = 2**20
BASE_BYTES = 395 * MEGABYTE
"""Torch and what it loads, in a trainer that has not been forked from a warm launcher."""
REPORT_BYTES = 60 * MEGABYTE
"""Torchmetrics and onnxruntime, which the end of a run needs."""
LABEL_BYTES = 8
HALF = ("bfloat16", "float16")
HALF_ACTIVATIONS = 0.55
"""Of their bytes in float32, by measurement of five networks (0.50 to 0.61): the normalized image stays float32."""
HALF_WEIGHTS = 0.5
"""Of the bytes of the weights: the copy of them that a minibatch computes with."""
EXPORT_COPIES = 5
"""Of the weights, beside the state of the run, while `model.onnx` is written and compared."""
EVALUATION_BATCH = 250
EVALUATION_VALUES = 2_000_000
"""As `evaluation.py` cuts a split on a CPU; a test compares."""


def steps_per_epoch(spec: TrainingSpec) -> int:
    """Optimizer updates of an epoch."""
    size = spec.training.batch_size * spec.training.accumulate
    return spec.num_train // size if spec.training.drop_last else -(-spec.num_train // size)


def num_steps(spec: TrainingSpec) -> int:
    """Optimizer updates of a run that early stopping does not end."""
    return spec.training.epochs * steps_per_epoch(spec)


@dataclass(frozen=True, slots=True)
class Memory:
    """The largest private memory of a trainer on a CPU, in bytes, by what takes it.

    What is mapped from files and shared between processes is not in it: the decoded dataset, and torch's libraries.
    """

    base: int
    """Python, torch and what they load."""
    dataset: int
    """The images and labels of the training and validation splits, which a run copies."""
    weights: int
    """Weights, gradients, the optimizer's state, and copies: for averaging, the best epoch and the exports."""
    activations: int
    """What a minibatch keeps until its backward pass."""
    evaluation: int
    """The largest layer of an evaluation, in and out, and the reports at the end."""

    @property
    def total(self) -> int:
        return self.base + self.dataset + self.weights + self.activations + self.evaluation


def memory(spec: TrainingSpec) -> Memory:
    """The predicted peak of a run, all its ranks together; rank 0 alone evaluates and exports."""
    devices, is_half = spec.training.devices, spec.training.precision in HALF
    copies = _weight_copies(spec) + HALF_WEIGHTS * is_half
    activations = spec.plan().activation_bytes * min(spec.training.batch_size, spec.num_train)
    return Memory(
        base=devices * BASE_BYTES,
        dataset=devices * (spec.num_train + spec.num_val) * (math.prod(spec.dataset.info.shape) + LABEL_BYTES),
        weights=round((devices * copies + EXPORT_COPIES) * spec.plan().weight_bytes),
        activations=round(HALF_ACTIVATIONS * activations) if is_half else activations,
        evaluation=_evaluation_bytes(spec) + REPORT_BYTES,
    )


def _slots(optimizer: Optimizer) -> int:
    """Values that an optimizer keeps for each weight, the look-ahead's copy included."""
    match optimizer:
        case SGD():
            return 0
        case AMSGrad():
            return 3
        case Adam() | AdamW() | NAdam() | Adadelta() | Nesterov():
            return 2
        case _:
            return 1


def _weight_copies(spec: TrainingSpec) -> int:
    """Weights, gradients and what has their size; an average takes another copy while it moves."""
    keeps_best = bool(spec.num_val) if spec.early_stopping is None else spec.early_stopping.restore_best_weights
    return 2 + _slots(spec.optimizer) + 2 * (spec.training.ema is not None) + keeps_best


def _evaluation_bytes(spec: TrainingSpec) -> int:
    """Of all tensors that live at once when a network is evaluated, at the layer where they are most."""
    info = spec.dataset.info
    batch = max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // math.prod(info.shape)))
    nodes, rows = spec.model.graph(info), spec.plan().layers
    last_use = {source: number for number, node in enumerate(nodes, start=1) for source in node.inputs}
    alive = {0: math.prod(info.shape)}
    largest = 0
    for number, row in enumerate(rows, start=1):
        # A normalization over channels makes copies of its input that it would keep for a backward pass.
        beside = row.activation_bytes // FLOAT_BYTES if row.type == "local_response_norm" else 0
        alive[number] = math.prod(row.output_shape)
        largest = max(largest, sum(alive.values()) + beside)
        alive = {source: size for source, size in alive.items() if last_use.get(source, 0) > number}
    return FLOAT_BYTES * batch * largest


@dataclass(frozen=True, slots=True)
class Work:
    """What the duration of a run grows with."""

    steps: int
    """Optimizer updates."""
    macs: int
    """Multiply-accumulates of all passes, a backward pass counted as two forward ones."""
    bytes: int
    """Activations that all passes write."""


def work(spec: TrainingSpec, epochs: int | None = None, *, device: str = "cpu") -> Work:
    """The work of a run of so many epochs, else of all that the spec names. What trains a GAN before is not counted.

    With several devices, what one would do in the same time: GPUs train side by side, and one of them evaluates;
    processes on a CPU share its threads, so that together they train as fast as one, and the first alone evaluates
    with its share of them.
    """
    epochs, plan, info = epochs or spec.training.epochs, spec.plan(), spec.dataset.info
    trained, judged = 3 * epochs * spec.num_train, (epochs + 1) * spec.num_val + info.num_test
    devices = spec.training.devices
    passes = -(-trained // devices) + judged if device == "cuda" else trained + devices * judged
    written = FLOAT_BYTES * sum(math.prod(layer.output_shape) for layer in plan.layers)
    return Work(epochs * steps_per_epoch(spec), passes * plan.macs, passes * written)
