"""The training loop: `for event in train(spec, data)`; to stop it, let `stop` say so, or leave the loop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnn.batches import Batches
from cnn.checkpoints import generations, load, save, step_of
from cnn.data import Data
from cnn.determinism import determinism_domain
from cnn.early_stopping import improves
from cnn.errors import CheckpointInvalid, Diverged
from cnn.evaluation import evaluate
from cnn.events import Checkpoint, Event, Metrics, Phase, Progress, Result, Stopped, Warning_
from cnn.export import export, export_weights
from cnn.learner import Learner
from cnn.spec import TrainingSpec
from cnn.splits import train_val_split

PROGRESS_SECONDS = 0.5
CHECKPOINT_SECONDS = 30.0
CHECKPOINT_COSTS = 200
"""Between two saves inside an epoch lies at least so many times what the last one took."""


def never() -> bool:
    """The answer of a run that nobody stops."""
    return False


def train(
    spec: TrainingSpec,
    data: Data,
    *,
    device: str = "cpu",
    checkpoints: Path | None = None,
    artifacts: Path | None = None,
    resume_from: Path | None = None,
    stop: Callable[[], bool] = never,
) -> Iterator[Event]:
    """Train the network of `spec` on `data`, and tell what happens.

    Args:
        device: "cpu" or "cuda"; the caller has resolved "auto", and has set the number of threads.
        checkpoints, artifacts: folders for complete states and for the files of users; None for no files.
        resume_from: a checkpoint (`step-<n>`) of the same spec and data; when it is damaged, the next older one beside
            it is taken. The run ends with the same bytes as one that was never interrupted.
        stop: asked before every step; once it is true, the run writes a checkpoint and ends with Stopped.

    Raises Diverged, after the last good weights were exported, or CheckpointInvalid.
    """
    yield Phase("preparing_data")
    run = _Run(spec, data, torch.device(device))
    if resume_from:
        yield from run.resume(resume_from)
    yield Phase("training")
    try:
        yield from _steps(run, checkpoints, stop)
    except Diverged as error:
        if artifacts:
            yield export_weights(artifacts, "last_good.safetensors", run.learner.weights(), error.step - 1)
        raise
    if not run.complete:
        yield Stopped(run.epoch, run.step)
        return
    yield Phase("evaluating")
    result = run.result(data)
    if artifacts:
        yield Phase("exporting")
        yield from export(artifacts, spec, run.delivered_weights(), run.metrics, result.step)
    yield result


def _steps(run: _Run, checkpoints: Path | None, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train until the run is complete or stopped."""
    yield run.progress()
    saved, told = _Clock(), _Clock()
    while not run.complete:
        stopping = stop()
        if stopping or saved.seconds > max(CHECKPOINT_SECONDS, CHECKPOINT_COSTS * run.save_seconds):
            run.check()
            yield from run.save(checkpoints)
            saved.restart()
        if stopping:
            return
        run.advance()
        due = told.seconds > PROGRESS_SECONDS or run.at_epoch_end
        if due or run.device.type == "cpu":  # where asking costs nothing
            run.check()
        if due:
            yield run.progress()
            told.restart()
        if run.at_epoch_end:
            yield run.end_epoch()
            yield from run.save(checkpoints)
            saved.restart()


class _Clock:
    """Wall-clock time since its start."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


@dataclass(frozen=True, slots=True)
class _Best:
    """The best epoch by the monitored series."""

    value: float
    epoch: int
    step: int
    weights: dict[str, Tensor]


class _Run:
    """What a run remembers between two steps."""

    def __init__(self, spec: TrainingSpec, data: Data, device: torch.device) -> None:
        training = spec.training
        split = spec.split
        kept, held_out = train_val_split(data.train_labels, split.val_fraction, split.num_train, split.seed)
        images, labels = data.train_images[kept], data.train_labels[kept]
        self.spec = spec
        self.device = device
        self.learner = Learner(spec, images, labels, device)
        self._batches = Batches(
            torch.from_numpy(images).to(device),
            torch.from_numpy(labels).to(device),
            size=training.batch_size * training.accumulate,
            drop_last=training.drop_last,
            augmentation=spec.augmentation,
            seed=training.seed,
        )
        self._val_images = torch.from_numpy(data.train_images[held_out]).to(device)
        self._val_labels = torch.from_numpy(data.train_labels[held_out]).to(device)
        self._num_steps = training.epochs * self._batches.per_epoch
        self._identity = {"spec": hashlib.sha256(spec.model_dump_json().encode()).hexdigest(), "data": data.digest}
        self._patience = spec.early_stopping.build() if spec.early_stopping else None
        self._monitor = self._choose_monitor()
        self._best: _Best | None = None
        self._epoch_clock = _Clock()
        self._images_this_epoch = 0
        self.metrics: list[Metrics] = []
        self.step = 0
        self.save_seconds = 0.0
        self._saved_step: int | None = None

    def _choose_monitor(self) -> str | None:
        """The series that decides which weights are delivered; None for the last ones."""
        early_stopping = self.spec.early_stopping
        if early_stopping:
            return early_stopping.monitor if early_stopping.restore_best_weights else None
        return "val_loss" if len(self._val_labels) else None

    @property
    def epoch(self) -> int:
        """The epoch in which `step` lies, from 1; 0 before the first step."""
        return -(-self.step // self._batches.per_epoch)

    @property
    def at_epoch_end(self) -> bool:
        return self.step % self._batches.per_epoch == 0

    @property
    def complete(self) -> bool:
        return self.step == self._num_steps or (self._patience is not None and self._patience.exhausted)

    def progress(self) -> Progress:
        return Progress(self.epoch, self.step, self.spec.training.epochs, self._num_steps)

    def _lr(self) -> float:
        return self.spec.schedule.lr(self.step, self._num_steps, self._batches.per_epoch, self.spec.optimizer.lr)

    def advance(self) -> None:
        """One optimizer update."""
        if self.at_epoch_end:
            self._epoch_clock.restart()
            self._images_this_epoch = 0
        self.step += 1
        images, labels = self._batches.at(self.epoch, self.step)
        self._images_this_epoch += len(labels)
        self.learner.update(self.epoch, self.step, images, labels, self._lr())

    def check(self) -> None:
        """Raise Diverged when a step up to here was not finite. Waits for the device."""
        found = self.learner.diverged()
        if found:
            step, bad = found
            epoch = -(-step // self._batches.per_epoch)
            images, labels = self._batches.at(epoch, step)
            raise Diverged(step, self.learner.first_bad_layer(epoch, step, images, labels, bad))

    def end_epoch(self) -> Metrics:
        """Evaluate, and remember the best weights."""
        loss, accuracy = self.learner.totals.means()
        self.learner.totals.reset()
        seconds = self._epoch_clock.seconds
        timings = {"images_per_second": self._images_this_epoch / seconds, "seconds": seconds}
        values = {"train_loss": loss, "train_accuracy": accuracy}
        weights = self.learner.weights()
        if len(self._val_labels):
            score = evaluate(self.learner.network, weights, self._val_images, self._val_labels)
            values |= {"val_loss": score.loss, "val_accuracy": score.accuracy}
        values |= {"lr": self._lr(), **self.learner.penalties()}
        if self._monitor and improves(self._monitor, values[self._monitor], self._best.value if self._best else None):
            copies = {name: tensor.clone() for name, tensor in weights.items()}
            self._best = _Best(values[self._monitor], self.epoch, self.step, copies)
        if self._patience:
            self._patience.update(values[self._patience.spec.monitor])
        self.metrics.append(Metrics(self.epoch, self.step, values, timings))
        return self.metrics[-1]

    def delivered_weights(self) -> dict[str, Tensor]:
        return self._best.weights if self._best else self.learner.weights()

    def result(self, data: Data) -> Result:
        """The delivered weights on the test split."""
        images = torch.from_numpy(data.test_images).to(self.device)
        labels = torch.from_numpy(data.test_labels).to(self.device)
        score = evaluate(self.learner.network, self.delivered_weights(), images, labels)
        if self._best:
            return Result(score.loss, score.accuracy, "best", self._best.epoch, self._best.step)
        return Result(score.loss, score.accuracy, "last", self.epoch, self.step)

    def save(self, folder: Path | None) -> Iterator[Checkpoint]:
        """Write a checkpoint, unless this run has just written this one."""
        if folder is None or self.step == self._saved_step:
            return
        clock = _Clock()
        tensors = self.learner.tensors()
        best = None
        if self._best:
            tensors |= {f"best.{name}": tensor for name, tensor in self._best.weights.items()}
            best = {"value": self._best.value, "epoch": self._best.epoch, "step": self._best.step}
        state = {
            "identity": self._identity,
            "domain": determinism_domain(self.device),
            "best": best,
            "patience": self._patience.memory() if self._patience else None,
            "metrics": [asdict(row) for row in self.metrics],
        }
        path = save(folder, self.step, tensors, state)
        self.save_seconds = clock.seconds
        self._saved_step = self.step
        yield Checkpoint(self.epoch, self.step, path)

    def resume(self, path: Path) -> Iterator[Event]:
        """Continue from the newest whole checkpoint that is `path` or older; tells again what came before it."""
        for candidate in generations(path.parent):
            if step_of(candidate) > step_of(path):
                continue
            try:
                tensors, state = load(candidate, self.device)
            except CheckpointInvalid as error:
                yield Warning_(error.message)
                continue
            self._restore(candidate, tensors, state)
            domain = determinism_domain(self.device)
            if state["domain"] != domain:
                yield Warning_(
                    f"{candidate.name} was written under {state['domain']}, this run goes on under {domain}: "
                    "its numbers may differ in the last bits from those of a run that was not interrupted"
                )
            yield from self.metrics
            return
        raise CheckpointInvalid(f"no checkpoint in {path.parent} up to {path.name} can be read")

    def _restore(self, path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        if state["identity"] != self._identity:
            raise CheckpointInvalid(f"{path} belongs to {state['identity']}, this run is {self._identity}")
        self.step = step_of(path)
        self.learner.restore(tensors)
        if state["best"]:
            # With the strides of the network's own: another layout in memory gives other last bits.
            current = self.learner.weights().items()
            weights = {name: torch.empty_like(tensor).copy_(tensors[f"best.{name}"]) for name, tensor in current}
            self._best = _Best(**state["best"], weights=weights)
        if self._patience:
            self._patience.recall(state["patience"])
        self.metrics = [Metrics(**row) for row in state["metrics"]]
