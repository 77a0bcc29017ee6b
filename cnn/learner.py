"""One optimizer update, and everything that it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.linalg import vector_norm

from cnn.distributed import Team
from cnn.feature_space import FeatureSpace
from cnn.feature_training import FeatureTraining
from cnn.fine_tuning import OWN, take_over
from cnn.models import build_network, fit_statistics
from cnn.optim.averaging import ExponentialMovingAverage
from cnn.optim.gate import FiniteGate
from cnn.precision import FORMATS, LossScale, lowered
from cnn.randomness import StepGenerator, attach_generator
from cnn.regularizers import Regularizer
from cnn.seeds import derive_seed
from cnn.spec import TrainingSpec
from cnn.totals import Totals
from cnn.weight_statistics import weight_statistics


class Learner:
    """A network with its optimizer.

    Args:
        spec: what the network is and how it learns.
        images: the training split, uint8 (N, C, H, W), from which the statistics of the network come.
        labels: the training split, (N,), from which balanced class weights come.
        device: where everything lies.
        init_weights: a safetensors file from which matching tensors are taken; `transfer` says which.

    The parameters hold W of the optimizer's equations between updates; `weights` is what is evaluated and delivered.
    Frozen layers have no gradient, no optimizer state and no average, and work as in evaluation.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        device: torch.device,
        init_weights: Path | None = None,
    ) -> None:
        self.network = initialized_network(spec)
        fit_statistics(self.network, spec, images)
        self.transfer = take_over(self.network, init_weights) if init_weights else None
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.totals = Totals(device)
        self._spec = spec
        self._random = StepGenerator(device, spec.training.seed, "layers")
        attach_generator(self.network, self._random.generator)
        members = [entry for entry in spec.augmentation if isinstance(entry, FeatureSpace)]
        self._features: FeatureTraining | None = None
        if members:
            split = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
            self._features = FeatureTraining(self.network, members, *split, self._random.generator)
        self._frozen = [self.network.get_submodule(name) for name in spec.frozen_layers]
        for layer in self._frozen:
            layer.requires_grad_(False)
        trained = {name: tensor for name, tensor in self.network.named_parameters() if tensor.requires_grad}
        self._names = list(trained)
        self._parameters: list[Tensor] = list(trained.values())
        self._matrices = {name: self._weight_of(name) for name in spec.plan().weight_layers}
        self._optimizer = self._build_optimizer()
        self._lr_scales = [group["lr"] / spec.optimizer.lr for group in self._optimizer.param_groups]
        self._loss = spec.loss.build(torch.from_numpy(labels).to(device), spec.dataset.info.num_classes)
        selected = ((regularizer, self._selected(regularizer)) for regularizer in spec.regularizers)
        self._regularized = [(regularizer, weights) for regularizer, weights in selected if weights]
        ema = spec.training.ema
        self._average = ExponentialMovingAverage(self._parameters, ema.decay) if ema else None
        self._gate = FiniteGate(len(self._parameters), device)
        self._scale = LossScale() if spec.training.precision == "float16" else None
        self._buffers = [buffer for name, buffer in self.network.named_buffers() if not name.startswith(OWN)]
        self._good_buffers = [buffer.clone() for buffer in self._buffers]
        self._team: Team | None = None

    def join(self, team: Team) -> None:
        """From now on be one rank of several, each with masks of its own and its share of the images."""
        self._team = team
        if team.rank:
            self._random = StepGenerator(
                self.totals.loss.device, self._spec.training.seed, f"layers of rank {team.rank}"
            )
            attach_generator(self.network, self._random.generator)
            self.totals.forget_counts()

    def _weight_of(self, layer: str) -> Tensor:
        return self.network.get_parameter(f"{layer}.weight")

    def _build_optimizer(self) -> torch.optim.Optimizer:
        matrices = [weight for weight in self._matrices.values() if weight.requires_grad]
        chosen = {id(weight) for weight in matrices}
        others = [parameter for parameter in self._parameters if id(parameter) not in chosen]
        return self._spec.optimizer.build_for(matrices, others)

    def _selected(self, regularizer: Regularizer) -> list[Tensor]:
        names = regularizer.select(regularizer.layers, list(self._matrices))
        return [weight for weight in map(self._matrices.__getitem__, names) if weight.requires_grad]

    def update(
        self,
        epoch: int,
        step: int,
        images: Tensor,
        labels: Tensor,
        lr: float,
        samples: Tensor | None = None,
        num_images: int | None = None,
    ) -> None:
        """Update `step`, in `epoch`, with the images and labels of all its minibatches.

        `samples` are their places in the training split, -1 for what is not in it (all, if it is None). `num_images`
        is their number on all ranks, where these are the share of one.
        Does nothing once a loss or gradient was not finite: ask `diverged`.
        """
        if self._features:
            self._features.begin(epoch)
        if samples is None:
            samples = torch.full((len(images),), -1, device=images.device)
        self._random.seek(epoch, step)
        for layer in self._frozen:
            layer.eval()
        with self._spec.optimizer.gradient_point(self._optimizer):
            loss = self._accumulate_gradients(images, labels, samples, num_images or len(labels))
            if self._scale:
                torch._foreach_div_(_gradients(self._parameters), self._scale.value)
            with torch.no_grad():  # a graph from a gradient to its weight would be a cycle, and stay in memory
                for regularizer, weights in self._regularized:
                    regularizer.add_gradient(weights, _gradients(weights))
        gradients = _gradients(self._parameters)
        norms = torch.stack(torch._foreach_norm(gradients))
        norm = vector_norm(norms)
        if not (self._scale and self._scale.overflowed(loss, norm)):
            self._follow(step, lr, loss, gradients, norm, norms)
        self._gate.keep(self._good_buffers, self._buffers)
        if self._average:
            self._average.update(step, self._gate.alive)

    def _follow(self, step: int, lr: float, loss: Tensor, gradients: list[Tensor], norm: Tensor, norms: Tensor) -> None:
        """Change the weights by the gradients, which have these norms, unless something was not finite."""
        self.totals.add_step(norm)
        if self._spec.training.max_grad_norm is not None:
            torch._foreach_mul_(gradients, (self._spec.training.max_grad_norm / norm).clamp_(max=1))
        self._gate.inspect(step, loss, norm, norms)
        self._gate.shield(self._optimizer)
        for group, scale in zip(self._optimizer.param_groups, self._lr_scales, strict=True):
            group["lr"] = scale * lr
        self._optimizer.step()
        with torch.no_grad():
            for regularizer, weights in self._regularized:
                regularizer.project(weights)

    def _accumulate_gradients(self, images: Tensor, labels: Tensor, samples: Tensor, num_images: int) -> Tensor:
        """The gradient of the mean loss over all samples, minibatch by minibatch; gives the sum of the losses."""
        for parameter in self._parameters:
            parameter.grad = None
        total = torch.zeros((), device=images.device)
        sizes = self._sizes(num_images)
        rows = torch.split(samples, sizes)
        for (inputs, targets), places in zip(_minibatches(images, labels, sizes), rows, strict=True):
            logits = self._logits(inputs, targets, places)
            loss = self._loss(logits, targets)
            weight = torch.full_like(loss, 1 / num_images)
            torch.autograd.backward(loss, weight * self._scale.value if self._scale else weight)
            total += loss.detach()
            self.totals.add(loss.detach(), logits.detach(), targets)
        if self._team:
            own = total.clone()
            self._team.add_up([*_gradients(self._parameters), total])
            self.totals.loss += total - own
        return total

    def _logits(self, images: Tensor, targets: Tensor, samples: Tensor) -> Tensor:
        with self._lowered():
            logits = self._features.forward(images, targets, samples) if self._features else self.network(images)
        return logits.float() if logits.dtype in FORMATS.values() else logits

    def _lowered(self) -> AbstractContextManager[object]:
        return lowered(self._spec.training.precision, self.totals.loss.device)

    def _sizes(self, num_images: int) -> int | list[int]:
        """Of the minibatches of an update with so many images on all ranks, as `torch.split` takes them."""
        size = self._spec.training.batch_size
        return [len(share) for share in self._team.shares(num_images, size)] if self._team else size

    def diverged(self) -> tuple[int, list[str]] | None:
        """The first step that was not finite, and the parameters whose gradients were not. Waits for the device."""
        found = self._gate.tripped()
        return found and (found[0], [self._names[index] for index in found[1]])

    @torch.no_grad()
    def first_bad_layer(self, epoch: int, step: int, images: Tensor, labels: Tensor, bad: list[str]) -> str:
        """After divergence: the layer whose output is first not finite, else the one whose gradient was.

        Takes back what the failed step did to running statistics.
        """
        self._random.seek(epoch, step)
        with self._spec.optimizer.gradient_point(self._optimizer), self._lowered():
            layer = self._first_bad_output(images, labels)
        for buffer, good in zip(self._buffers, self._good_buffers, strict=True):
            buffer.copy_(good)
        # Backward, values that are not finite spread towards the input: the last layer is where they began.
        # Where neither was, the loss of finite outputs overflowed.
        culprit = bad[-1].rsplit(".", 1)[0] if bad else [name for name, _ in self.network.named_children()][-1]
        return layer or culprit.removesuffix(".parametrizations.weight")

    def _first_bad_output(self, images: Tensor, labels: Tensor) -> str | None:
        for x, _ in _minibatches(images, labels, self._spec.training.batch_size):
            for name, layer in self.network.named_children():
                x = layer(x)
                if not x.isfinite().all():
                    return name
        return None

    def weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and to deliver, keys as in the network's state dict: not copies."""
        weights: dict[str, Tensor] = dict(self.network.state_dict())
        if self._average:
            weights.update(zip(self._names, self._average.averages, strict=True))
        return weights

    @torch.no_grad()
    def penalty(self) -> float:
        """What the regularizers add to the loss at W."""
        return float(sum(regularizer.value(weights) for regularizer, weights in self._regularized))

    def weight_statistics(self) -> dict[str, float]:
        """Of the weights of all convolutions and dense layers at W."""
        return weight_statistics(list(self._matrices.values()))

    def loss_scale(self) -> dict[str, float]:
        """Of float16; empty in other precisions."""
        return {"loss_scale": self._scale.value} if self._scale else {}

    def tensors(self) -> dict[str, Tensor]:
        """The complete state between two updates: not copies."""
        tensors = {f"network.{key}": tensor for key, tensor in self.network.state_dict().items()}
        tensors |= {f"totals.{key}": tensor for key, tensor in self.totals.tensors().items()}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            for key, tensor in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        if self._average:
            tensors |= {f"average.{name}": a for name, a in zip(self._names, self._average.averages, strict=True)}
        if self._scale:
            tensors |= {f"loss_scale.{key}": tensor for key, tensor in self._scale.tensors().items()}
        if self._features:
            tensors |= {f"features.{key}": tensor for key, tensor in self._features.tensors().items()}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave. Raises KeyError when a tensor is missing."""
        self.network.load_state_dict({key: tensors[f"network.{key}"] for key in self.network.state_dict()})
        for key, total in self.totals.tensors().items():
            total.copy_(tensors[f"totals.{key}"])
        for name, parameter in zip(self._names, self._parameters, strict=True):
            for key, state in self._optimizer.state[parameter].items():
                state.copy_(tensors[f"optimizer.{name}.{key}"])
        if self._average:
            for name, average in zip(self._names, self._average.averages, strict=True):
                average.copy_(tensors[f"average.{name}"])
        if self._scale:
            self._scale.restore(_below("loss_scale.", tensors))
        if self._features:
            self._features.restore(_below("features.", tensors))
        for good, buffer in zip(self._good_buffers, self._buffers, strict=True):
            good.copy_(buffer)


def initialized_network(spec: TrainingSpec) -> nn.Sequential:
    """The network of a spec with the initial weights that follow from its seed; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        # Of the CPU alone: `torch.manual_seed` formats a stack trace for each kind of GPU, which delays the first step.
        torch.default_generator.manual_seed(derive_seed(spec.training.seed, "initialization"))
        return build_network(spec)


def _minibatches(images: Tensor, labels: Tensor, sizes: int | list[int]) -> Iterable[tuple[Tensor, Tensor]]:
    images = images.contiguous(memory_format=torch.channels_last)
    return zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True)


def _gradients(weights: Iterable[Tensor]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
