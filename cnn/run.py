"""The state of a run: everything that it remembers between two steps, and its checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from cnn.batches import Batches
from cnn.best_epoch import BestEpoch
from cnn.checkpoints import EXPECTED_BYTES_PER_SECOND, generations, load, save, step_of
from cnn.data import Data
from cnn.determinism import determinism_domain
from cnn.distributed import GATHER, Ranks, Team
from cnn.errors import CheckpointInvalid, Diverged
from cnn.evaluation import Score, evaluate
from cnn.events import Checkpoint, Event, Metrics, Progress, Result, Warning_
from cnn.gan_training import GanTraining
from cnn.learner import Learner
from cnn.report import split_report
from cnn.schedules import ReduceOnPlateau
from cnn.spec import TrainingSpec
from cnn.splits import train_val_split


class Clock:
    """Wall-clock time since its start."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


class Run:
    """What a run remembers between two steps."""

    def __init__(self, spec: TrainingSpec, data: Data, device: torch.device, init_weights: Path | None) -> None:
        training = spec.training
        split = spec.split
        kept, held_out = train_val_split(data.train_labels, split.val_fraction, split.num_train, split.seed)
        images, labels = data.train_images[kept], data.train_labels[kept]
        self.spec = spec
        self.device = device
        self.learner = Learner(spec, images, labels, device, init_weights)
        split_on_device = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        self._batches = Batches(
            *split_on_device,
            size=training.batch_size * training.accumulate,
            drop_last=training.drop_last,
            augmentation=spec.augmentation,
            num_classes=spec.dataset.info.num_classes,
            seed=training.seed,
        )
        self._val_images = torch.from_numpy(data.train_images[held_out]).to(device)
        self._val_labels = torch.from_numpy(data.train_labels[held_out]).to(device)
        self._num_steps = training.epochs * self._batches.per_epoch
        self.gan = GanTraining.of(spec, *split_on_device, self._num_steps)
        self._batches.mixture = self.gan.mixture if self.gan else None
        self._identity = {"spec": spec.model_dump(mode="json"), "data": data.digest}
        if self.learner.transfer:
            self._identity["init_weights"] = self.learner.transfer.sha256
        self._patience = spec.early_stopping.build() if spec.early_stopping else None
        self._plateau = spec.schedule.build() if isinstance(spec.schedule, ReduceOnPlateau) else None
        self._best = BestEpoch(self._monitor())
        self._epoch_clock = Clock()
        self._images_this_epoch = 0
        self.metrics: list[Metrics] = []
        self.step = 0
        self.save_bytes = sum(tensor.nbytes for tensor in self._tensors().values())
        self.save_seconds = self.save_bytes / EXPECTED_BYTES_PER_SECOND
        self._saved_step: int | None = None
        self.resumed_from: Path | None = None
        self._team: Team | None = None
        self._ranks: Ranks | None = None

    def _monitor(self) -> str | None:
        """The series that decides which weights are delivered; None for the last ones."""
        early_stopping = self.spec.early_stopping
        if early_stopping:
            return early_stopping.monitor if early_stopping.restore_best_weights else None
        return "val_loss" if len(self._val_labels) else None

    @property
    def epoch(self) -> int:
        """The epoch in which `step` lies, from 1; 0 before the first step."""
        return -(-self.step // self._batches.per_epoch)

    def stages(self) -> Iterator[tuple[Literal["training_gan", "training"], Run | GanTraining]]:
        """What is still to be trained."""
        if self.gan and not self.gan.complete:
            yield "training_gan", self.gan
        yield "training", self

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and step of the events that tell of now."""
        return self.gan.epoch if self.gan and self.step == 0 else self.epoch, self.job_step

    @property
    def job_step(self) -> int:
        """The number that events give to `step`: it counts on from those of the GAN."""
        return self.step + (self.gan.step if self.gan else 0)

    @property
    def at_epoch_end(self) -> bool:
        return self.step % self._batches.per_epoch == 0

    @property
    def complete(self) -> bool:
        return self.step == self._num_steps or (self._patience is not None and self._patience.exhausted)

    def progress(self) -> Progress:
        num_steps = self._num_steps + self.job_step - self.step
        return Progress(self.epoch, self.job_step, self.spec.training.epochs, num_steps)

    def _lr(self) -> float:
        return self._lr_of(self.step)

    def _lr_of(self, step: int) -> float:
        lr = self.spec.schedule.lr(step, self._num_steps, self._batches.per_epoch, self.spec.optimizer.lr)
        return self._plateau.reduce(lr) if self._plateau else lr

    def advance(self) -> None:
        """One optimizer update."""
        if self.at_epoch_end:
            self._epoch_clock.restart()
            self._images_this_epoch = 0
        step, lr = self.step + 1, self._lr_of(self.step + 1)
        if self._ranks:
            self._ranks.begin(step, lr)
        self._images_this_epoch += self.follow(step, lr)

    def follow(self, step: int, lr: float) -> int:
        """Update `step` with this learning rate; gives the number of images of all ranks."""
        self.step = step
        images, labels = self._batches.at(self.epoch, step)
        samples = self._batches.samples(self.epoch, step)
        num_images = len(labels)
        if self._team:
            size = self.spec.training.batch_size
            images, labels, samples = (self._team.part(tensor, size) for tensor in (images, labels, samples))
        self.learner.update(self.epoch, step, images, labels, lr, samples, num_images)
        return num_images

    def join(self, team: Team, ranks: Ranks | None) -> None:
        """From now on be one rank of several, rank 0 with the others at hand."""
        self._team, self._ranks = team, ranks
        self.learner.join(team)

    def gather(self) -> None:
        """Bring the counts of the epoch to rank 0."""
        if self._ranks:
            self._ranks.begin(GATHER, 0.0)
        if self._team:
            self.learner.totals.gather(self._team)

    def check(self) -> None:
        """Raise Diverged when a step up to here was not finite. Waits for the device."""
        found = self.learner.diverged()
        if found:
            step, bad = found
            epoch = -(-step // self._batches.per_epoch)
            images, labels = self._batches.at(epoch, step)
            layer = self.learner.first_bad_layer(epoch, step, images, labels, bad)
            raise Diverged(step + self.job_step - self.step, layer)

    def end_epoch(self) -> Metrics:
        """Evaluate, and remember the best weights."""
        self.gather()
        values = self.learner.totals.means()
        self.learner.totals.reset()
        seconds = self._epoch_clock.seconds
        timings = {"images_per_second": self._images_this_epoch / seconds, "seconds": seconds}
        weights = self.learner.weights()
        if len(self._val_labels):
            score = self._evaluate(weights, self._val_images, self._val_labels)
            values |= {"val_loss": score.loss, "val_accuracy": score.accuracy}
            if score.top5_accuracy is not None:
                values["val_top5_accuracy"] = score.top5_accuracy
        values |= {"lr": self._lr(), "penalty": self.learner.penalty(), **self.learner.weight_statistics()}
        values |= self.learner.loss_scale()
        self._best.update(values, self.epoch, self.job_step, weights)
        if self._patience:
            self._patience.update(values[self._patience.spec.monitor])
        if self._plateau:
            self._plateau.update(values[self._plateau.spec.monitor])
        return Metrics(self.epoch, self.job_step, values, timings)

    def _evaluate(self, weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Score:
        mirror = self.spec.training.test_time_augmentation == "horizontal_flip"
        return evaluate(self.learner.network, weights, images, labels, mirror=mirror)

    def delivered_weights(self) -> dict[str, Tensor]:
        return self._best.weights or self.learner.weights()

    def result(self, data: Data) -> tuple[Result, dict[str, Any]]:
        """The delivered weights on the test split, and what `report.json` says of them."""
        splits = {"test": (torch.from_numpy(data.test_images), torch.from_numpy(data.test_labels))}
        if len(self._val_labels):
            splits["val"] = (self._val_images, self._val_labels)
        names = self.spec.dataset.info.labels
        scores, reports = {}, {}
        for name, (images, labels) in splits.items():
            pair = images.to(self.device), labels.to(self.device)
            scores[name] = self._evaluate(self.delivered_weights(), *pair)
            reports[name] = split_report(scores[name], labels, names)
        test = scores["test"]
        result = Result(test.loss, test.accuracy, "last", self.epoch, self.job_step)
        if self._best.weights:
            result = Result(test.loss, test.accuracy, "best", self._best.epoch, self._best.step)
        delivered = {"weights": result.weights, "epoch": result.epoch, "step": result.step}
        transfer = self.learner.transfer.to_json() if self.learner.transfer else None
        gan = {key: value for row in self.metrics for key, value in row.values.items() if key.startswith("gan_")}
        judged = {"test_time_augmentation": self.spec.training.test_time_augmentation, "splits": reports}
        return result, {**delivered, "init_weights": transfer, "gan": gan or None, **judged}

    def save(self, folder: Path | None) -> Iterator[Checkpoint]:
        """Write a checkpoint, unless this run has just written this one."""
        step = self.job_step
        if folder is None or step == self._saved_step:
            return
        clock = Clock()
        self.gather()
        tensors = self._tensors()
        state = {
            "identity": self._identity,
            "domain": determinism_domain(self.device),
            "gan_step": self.gan.step if self.gan else 0,
            "best": self._best.memory(),
            "patience": self._patience.memory() if self._patience else None,
            "plateau": self._plateau.memory() if self._plateau else None,
            "metrics": [asdict(row) for row in self.metrics],
        }
        path = save(folder, step, tensors, state)
        self.save_seconds = clock.seconds
        self.save_bytes = sum(tensor.nbytes for tensor in tensors.values())
        self._saved_step = step
        yield Checkpoint(*self.position, path)

    def _tensors(self) -> dict[str, Tensor]:
        """Those of a checkpoint: not copies."""
        of_gan = self.gan.tensors() if self.gan else {}
        best = self._best.tensors(self.job_step)
        return self.learner.tensors() | best | {f"gan.{name}": tensor for name, tensor in of_gan.items()}

    def begin(self, resume_from: Path | None) -> Iterator[Event]:
        """Tell what the initial weights lacked, and go on from a checkpoint."""
        transfer = self.learner.transfer
        if transfer and not transfer.is_whole:
            yield Warning_(str(transfer))
        if resume_from:
            yield from self._resume(resume_from)

    def _resume(self, path: Path) -> Iterator[Event]:
        """Continue from the newest whole checkpoint that is `path` or older; tells again what came before it."""
        for candidate in generations(path.parent):
            if step_of(candidate) > step_of(path):
                continue
            try:
                tensors, state = load(candidate, self.device)
            except CheckpointInvalid as error:
                yield Warning_(error.message)
                continue
            self.restore(candidate, tensors, state)
            self.resumed_from = candidate
            domain = determinism_domain(self.device)
            if state["domain"] != domain:
                yield Warning_(
                    f"{candidate.name} was written under {state['domain']}, this run goes on under {domain}: "
                    "its numbers may differ in the last bits from those of a run that was not interrupted"
                )
            yield from self.metrics
            return
        raise CheckpointInvalid(f"no checkpoint in {path.parent} up to {path.name} can be read")

    def _not_of_this_run(self, identity: dict[str, Any]) -> list[str]:
        """What of the run that wrote a checkpoint is another; its spec may lack fields that have been added since."""
        try:
            spec = TrainingSpec.model_validate_json(json.dumps(identity["spec"]))
        except ValidationError:
            return ["spec"]
        same = identity | {"spec": spec.model_dump(mode="json")}
        return sorted(name for name in same.keys() | self._identity if same.get(name) != self._identity.get(name))

    def restore(self, path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take over the state of the checkpoint `path`. Raises CheckpointInvalid when it is another run's."""
        if others := self._not_of_this_run(state["identity"]):
            raise CheckpointInvalid(f"{path} belongs to a run with other {' and '.join(others)}")
        self.step = step_of(path) - state["gan_step"]
        self.learner.restore(tensors)
        if self.gan:
            prefix = "gan."
            state_of_gan = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
            self.gan.restore(state["gan_step"], state_of_gan)
        self._best.recall(state["best"], tensors, step_of(path), self.learner.weights())
        if self._patience:
            self._patience.recall(state["patience"])
        if self._plateau:
            self._plateau.recall(state["plateau"])
        self.metrics = [Metrics(**row) for row in state["metrics"]]
