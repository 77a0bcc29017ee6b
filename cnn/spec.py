"""TrainingSpec: one training run, one field per family, and the checks that span families.

The same class is the body of a request, the stored record, the file of the command line and the argument of the loop.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cnn.augmentation import Augmentation, check_augmentation, check_devices
from cnn.base import Items, Spec, spec_error
from cnn.datasets import Dataset
from cnn.early_stopping import EarlyStopping
from cnn.errors import DataCorrupt, DatasetMissing
from cnn.feature_space import check_feature_space
from cnn.findings import Operation, put
from cnn.generative import check_gan
from cnn.layers import Linear
from cnn.losses import CrossEntropy, Loss, check_class_weights
from cnn.models import Layers, Model
from cnn.normalization import Normalization, Standardize
from cnn.optimizers import Optimizer
from cnn.plan import LayerDoesNotFit, Plan
from cnn.regularizers import Regularizer
from cnn.schedules import Constant, Schedule, check_schedule

MAX_PARAMETERS = 1_000_000_000


class Split(Spec):
    """How the training images are divided into `train` and `val`: at random, with the same share of every class."""

    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training images that is kept for validation; 0 for none."""
    num_train: Annotated[int, Field(ge=1)] | None = None
    """Use only so many images of the training split, with the same share of every class; null for all.

    With one seed, a smaller number gives a part of what a larger one gives, but for the rounding of shares."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the division; apart from `training.seed`, so that runs with other seeds stay comparable."""


class EMA(Spec):
    """Exponential moving average of the weights: average ← decay · average + (1 - decay) · W after every step.

    With it, the averages are what is evaluated, compared and delivered. Only trained parameters are averaged: the
    statistics of batch normalization, averages themselves, are those of the network.
    """

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Weight of the past."""


class Training(Spec):
    """Length, batches, randomness and place of a run."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Passes over the training split."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    """Images of a minibatch."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """From which every random number of the run follows."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a GPU when the worker has one."""
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs, or processes on a CPU, that share the work of every minibatch."""
    precision: Literal["float32", "tensorfloat32", "bfloat16", "float16"] = "float32"
    """Number format of what convolutions and dense layers compute in training, and of the activations between them.

    `tensorfloat32` rounds what a GPU multiplies to 10 bits of fraction, also in evaluations; on a CPU it is float32.
    `bfloat16` and `float16` take half the memory, float16 with a dynamic loss scale (Micikevicius et al., ICLR 2018); a
    CPU without instructions for them computes them many times slower than float32. Weights, losses, gradients, updates,
    evaluations and GANs stay float32."""
    deterministic: bool = True
    """Whether equal runs give equal bytes on a GPU, too; false lets it choose algorithms by timing, and sum in any
    order. A CPU always gives equal bytes."""
    accumulate: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Minibatches whose gradients are averaged for one step."""
    drop_last: bool = True
    """Leave out the last images of an epoch when they do not fill a minibatch."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Scale the gradient down to this global norm when it is longer."""
    ema: EMA | None = None
    """Average the weights over the steps."""
    init: Literal["default", "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal"] = (
        "default"
    )
    """How the weights of convolutions and dense layers begin; all but torch's `default` set their biases to 0.

    With n_in values that a unit sees and n_out that it feeds: kaiming (He et al., ICCV 2015) has variance 2 / n_in,
    xavier (Glorot & Bengio, AISTATS 2010) 2 / (n_in + n_out); orthogonal (Saxe et al., ICLR 2014) has rows or columns
    that are orthonormal. What is in a weight_norm keeps torch's."""
    test_time_augmentation: Literal["horizontal_flip"] | None = None
    """Judge by the mean of the logits of an image and its mirror image, in validation and test, at twice the time."""
    init_from: Annotated[str, Field(pattern=r"^job_[0-9a-z]+$", max_length=64)] | None = None
    """Id of a job whose `model.safetensors` to start from. Tensors of the same name and shape are taken, the rest is
    initialized and reported; the statistics of the input normalization come from this run's own training split."""
    frozen: Annotated[Items[Annotated[str, Field(min_length=1)]], Field(max_length=1000)] = ()
    """Names or patterns (`conv*`) of layers whose parameters stay as they are.

    They get no gradient, no penalty and no weight decay, and batch normalization among them works with the statistics
    that it has, which do not move."""


class TrainingSpec(Spec):
    """A convolutional network and how to train it."""

    dataset: Dataset
    """What to learn from."""
    split: Split = Split()
    """The validation split."""
    normalization: Normalization | None = Standardize()
    """Input normalization; null feeds the raw values 0 to 255."""
    augmentation: Annotated[Items[Augmentation], Field(max_length=100)] = ()
    """Random changes to the training images, in this order."""
    model: Model
    """The network."""
    regularizers: Annotated[Items[Regularizer], Field(max_length=100)] = ()
    """Penalties and constraints on the weights."""
    loss: Loss = CrossEntropy()
    """What is minimized, beside the penalties."""
    optimizer: Optimizer
    """How the weights follow the gradient."""
    schedule: Schedule = Constant()
    """Learning rate over the steps."""
    training: Training = Training()
    """Length, batches, randomness and place."""
    early_stopping: EarlyStopping | None = None
    """When to stop before the last epoch."""

    def plan(self) -> Plan:
        """Shapes, parameters, multiply-accumulates and memory, layer by layer."""
        return self.model.plan(self.dataset.info)

    @property
    def frozen_layers(self) -> list[str]:
        """The layers with parameters that `training.frozen` names."""
        names = self._layers_with_parameters
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in self.training.frozen)]

    @property
    def _layers_with_parameters(self) -> list[str]:
        return list(dict.fromkeys(layer.name for layer in self.plan().layers if layer.num_parameters))

    @property
    def num_train(self) -> int:
        """Images of the training split."""
        return self.split.num_train or self._num_kept

    @property
    def _num_kept(self) -> int:
        """Images that are not for validation."""
        return self.dataset.info.num_train - self.num_val

    @property
    def num_val(self) -> int:
        """Images of the validation split, all classes together; the split itself rounds per class."""
        return round(self.dataset.info.num_train * self.split.val_fraction)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_dataset()
        self._check_model()
        self._check_augmentation()
        self._check_regularizers()
        self._check_splits()
        self._check_batch_norm()
        check_class_weights(self.loss, self.dataset.info)
        check_schedule(self.schedule, self.optimizer.lr, self.training.epochs)
        self._check_frozen()
        return self

    def _check_dataset(self) -> None:
        try:
            _ = self.dataset.info
        except (DatasetMissing, DataCorrupt) as error:
            hint = f" ({error.hint})" if error.hint else ""
            place = "/dataset/path" if self.dataset.local_path else "/dataset/id"
            raise spec_error(error.code, place, f"{error.message}{hint}") from error

    def _check_model(self) -> None:
        info = self.dataset.info
        try:
            plan = self.plan()
        except LayerDoesNotFit as error:
            raise spec_error(error.code, f"/model{error.pointer}", str(error)) from error
        if plan.output_shape != (info.num_classes,):
            last = plan.layers[-1]
            has_width = isinstance(self.model, Layers) and isinstance(self.model.layers[-1], Linear)
            path = f"/model{last.pointer}/out_features"
            mended: Operation = {"op": "replace", "path": path, "value": info.num_classes}
            raise spec_error(
                "wrong_output",
                f"/model{last.pointer}",
                f"the last layer {last.name} must give one value for each of the {info.num_classes} classes of "
                f"{info.name}, it gives {last.output_shape}",
                got=list(last.output_shape),
                fix=[mended] if has_width else [],
            )
        if plan.num_parameters > MAX_PARAMETERS:
            raise spec_error(
                "model_too_large",
                "/model",
                f"the model has {plan.num_parameters:,} parameters, the limit is {MAX_PARAMETERS:,}",
                got=plan.num_parameters,
            )

    def _check_augmentation(self) -> None:
        check_augmentation(self.augmentation, self.dataset.info.shape)
        check_feature_space(self.augmentation, self.plan(), self.num_train)
        check_gan(self.augmentation, self.num_train)
        check_devices(self.training.devices, self._smallest_minibatch, self.augmentation)

    def _check_regularizers(self) -> None:
        names = self.plan().weight_layers
        for index, regularizer in enumerate(self.regularizers):
            if not names:
                raise spec_error(
                    "no_such_layer", f"/regularizers/{index}", f"{regularizer.type}: no layer has a weight to act on"
                )
            for position, pattern in enumerate(regularizer.layers or ()):
                if not regularizer.select([pattern], names):
                    raise spec_error(
                        "no_such_layer",
                        f"/regularizers/{index}/layers/{position}",
                        f"no layer with a weight is called {pattern!r}; there are: {', '.join(names)}",
                        allowed=names,
                    )

    @property
    def _smallest_minibatch(self) -> int:
        size = self.training.batch_size
        return size if self.training.drop_last else self.num_train % size or size

    def _check_batch_norm(self) -> None:
        size = self.training.batch_size
        smallest = self._smallest_minibatch // self.training.devices
        for layer in self.plan().layers:
            if layer.type == "batch_norm" and smallest * math.prod(layer.input_shape[1:]) == 1:
                raise spec_error(
                    "batch_too_small",
                    "/training/batch_size",
                    f"layer {layer.name}: batch norm needs more than one value per channel, but a minibatch has "
                    f"one image here ({self.num_train} images in minibatches of {size})",
                    got=size,
                )

    def _check_splits(self) -> None:
        if self.split.num_train is not None and self.split.num_train > self._num_kept:
            raise spec_error(
                "not_enough_images",
                "/split/num_train",
                f"{self.dataset.info.name} has {self._num_kept} images for training beside those for validation",
                got=self.split.num_train,
            )
        needed = self.training.batch_size * (self.training.accumulate if self.training.drop_last else 1)
        if self.training.drop_last and needed > self.num_train:
            fitting = self.num_train // self.training.accumulate
            raise spec_error(
                "batch_too_large",
                "/training/batch_size",
                f"one step needs {needed} images, but the training split has {self.num_train}: an epoch would be empty",
                got=self.training.batch_size,
                fix=put(self, "training", "batch_size", fitting) if fitting else [],
            )
        watchers = {"early_stopping": self.early_stopping, "schedule": self.schedule}
        for name, watcher in watchers.items():
            monitor = getattr(watcher, "monitor", "")
            if monitor.startswith("val_") and not self.num_val:
                raise spec_error(
                    "no_validation_split",
                    f"/{name}/monitor",
                    f"{monitor} needs a validation split, but split.val_fraction is 0",
                    got=monitor,
                )

    def _check_frozen(self) -> None:
        names = self._layers_with_parameters
        for index, pattern in enumerate(self.training.frozen):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise spec_error(
                    "no_such_layer",
                    f"/training/frozen/{index}",
                    f"no layer with parameters is called {pattern!r}; there are: {', '.join(names)}",
                    allowed=names,
                )
        if self.training.frozen and set(names) == set(self.frozen_layers):
            raise spec_error(
                "nothing_to_train", "/training/frozen", "every layer with parameters is frozen: none is left to train"
            )
