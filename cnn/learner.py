"""One optimizer update, and everything that it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.linalg import vector_norm

from cnn.models import build_network, fit_statistics
from cnn.optim.averaging import ExponentialMovingAverage
from cnn.optim.gate import FiniteGate
from cnn.randomness import StepGenerator, attach_generator
from cnn.regularizers import L1, Regularizer
from cnn.seeds import derive_seed
from cnn.spec import TrainingSpec

NEAR_ZERO = 1e-3


class Totals:
    """Sums over the samples of an epoch, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.seen = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss += loss
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.seen += len(labels)

    def means(self) -> tuple[float, float]:
        """Mean loss, and accuracy; waits for the device."""
        seen = int(self.seen.item())
        return self.loss.item() / seen, int(self.correct.item()) / seen

    def tensors(self) -> dict[str, Tensor]:
        return {"loss": self.loss, "correct": self.correct, "seen": self.seen}

    def reset(self) -> None:
        for total in self.tensors().values():
            total.zero_()


class Learner:
    """A network with its optimizer.

    Args:
        spec: what the network is and how it learns.
        images: the training split, uint8 (N, C, H, W), from which the statistics of the network come.
        labels: the training split, (N,), from which balanced class weights come.
        device: where everything lies.

    The parameters hold W of the optimizer's equations between updates; `weights` is what is evaluated and delivered.
    """

    def __init__(
        self, spec: TrainingSpec, images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device
    ) -> None:
        self.network = initialized_network(spec)
        fit_statistics(self.network, spec, images)
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.totals = Totals(device)
        self._spec = spec
        self._random = StepGenerator(device, spec.training.seed, "layers")
        attach_generator(self.network, self._random.generator)
        self._names = [name for name, _ in self.network.named_parameters()]
        self._parameters: list[Tensor] = list(self.network.parameters())
        self._optimizer = spec.optimizer.build(self._parameters)
        self._loss = spec.loss.build(torch.from_numpy(labels).to(device), spec.dataset.info.num_classes)
        self._regularized = [(regularizer, self._selected(regularizer)) for regularizer in spec.regularizers]
        ema = spec.training.ema
        self._average = ExponentialMovingAverage(self._parameters, ema.decay) if ema else None
        self._gate = FiniteGate(len(self._parameters), device)
        self._buffers = list(self.network.buffers())
        self._good_buffers = [buffer.clone() for buffer in self._buffers]

    def _selected(self, regularizer: Regularizer) -> list[Tensor]:
        names = regularizer.select(regularizer.layers, self._spec.plan().weight_layers)
        return [self.network.get_parameter(f"{name}.weight") for name in names]

    def update(self, epoch: int, step: int, images: Tensor, labels: Tensor, lr: float) -> None:
        """Update `step`, in `epoch`, with the images and labels of all its minibatches.

        Does nothing once a loss or gradient was not finite: ask `diverged`.
        """
        self._random.seek(epoch, step)
        with self._spec.optimizer.gradient_point(self._optimizer):
            loss = self._accumulate_gradients(images, labels)
            for regularizer, weights in self._regularized:
                regularizer.add_gradient(weights, _gradients(weights))
        gradients = _gradients(self._parameters)
        norms = torch.stack(torch._foreach_norm(gradients))
        if self._spec.training.max_grad_norm is not None:
            torch._foreach_mul_(gradients, (self._spec.training.max_grad_norm / vector_norm(norms)).clamp_(max=1))
        self._gate.inspect(step, loss, norms)
        self._gate.shield(self._optimizer, gradients)
        self._gate.keep(self._good_buffers, self._buffers)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        with torch.no_grad():
            for regularizer, weights in self._regularized:
                regularizer.project(weights)
        if self._average:
            self._average.update(step)

    def _accumulate_gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient of the mean loss over all samples, minibatch by minibatch; gives the sum of the losses."""
        self._optimizer.zero_grad()
        total = torch.zeros((), device=images.device)
        for inputs, targets in self._minibatches(images, labels):
            logits = self.network(inputs)
            loss = self._loss(logits, targets)
            torch.autograd.backward(loss / len(labels))
            total += loss.detach()
            self.totals.add(loss.detach(), logits.detach(), targets)
        return total

    def _minibatches(self, images: Tensor, labels: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        size = self._spec.training.batch_size
        images = images.contiguous(memory_format=torch.channels_last)
        return zip(torch.split(images, size), torch.split(labels, size), strict=True)

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
        with self._spec.optimizer.gradient_point(self._optimizer):
            layer = self._first_bad_output(images, labels)
        for buffer, good in zip(self._buffers, self._good_buffers, strict=True):
            buffer.copy_(good)
        # Backward, values that are not finite spread towards the input: the last layer is where they began.
        return layer or bad[-1].rsplit(".", 1)[0]

    def _first_bad_output(self, images: Tensor, labels: Tensor) -> str | None:
        for x, _ in self._minibatches(images, labels):
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
    def penalties(self) -> dict[str, float]:
        """What the regularizers add to the loss at W, and how sparse the weights under L1 are."""
        values = {"penalty": float(sum(regularizer.value(weights) for regularizer, weights in self._regularized))}
        sparse = [weights for regularizer, weights in self._regularized if isinstance(regularizer, L1)]
        if sparse:
            magnitudes = torch.cat([weight.abs().flatten() for weights in sparse for weight in weights])
            values["zero_share"] = float((magnitudes == 0).double().mean())
            values["near_zero_share"] = float((magnitudes < NEAR_ZERO).double().mean())
        return values

    def tensors(self) -> dict[str, Tensor]:
        """The complete state between two updates: not copies."""
        tensors = {f"network.{key}": tensor for key, tensor in self.network.state_dict().items()}
        tensors |= {f"totals.{key}": tensor for key, tensor in self.totals.tensors().items()}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            for key, tensor in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        if self._average:
            tensors |= {f"average.{name}": a for name, a in zip(self._names, self._average.averages, strict=True)}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave. Raises KeyError when a tensor is missing."""
        self.network.load_state_dict({key: tensors[f"network.{key}"] for key in self.network.state_dict()})
        for key, total in self.totals.tensors().items():
            total.copy_(tensors[f"totals.{key}"])
        for name, parameter in zip(self._names, self._parameters, strict=True):
            prefix = f"optimizer.{name}."
            state = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            self._optimizer.state[parameter] = {key: _laid_out_like(parameter, tensor) for key, tensor in state.items()}
        if self._average:
            for name, average in zip(self._names, self._average.averages, strict=True):
                average.copy_(tensors[f"average.{name}"])
        for good, buffer in zip(self._good_buffers, self._buffers, strict=True):
            good.copy_(buffer)


def initialized_network(spec: TrainingSpec) -> nn.Sequential:
    """The network of a spec with the initial weights that follow from its seed; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(spec.training.seed, "initialization"))
        return build_network(spec)


def _gradients(weights: Iterable[Tensor]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The fused optimizers walk through memory: a state must have the strides of its parameter, not only its shape."""
    if tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
