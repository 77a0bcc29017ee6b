"""The training loop: `for event in train(spec, data)`; to stop it, let `stop` say so, or leave the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnn.contact_sheet import contact_sheet
from cnn.data import Data
from cnn.determinism import determinism_domain, numerics
from cnn.distributed import Ranks, shared_threads
from cnn.errors import Diverged, TrainingError
from cnn.events import Artifact, Event, Phase, Result, Stopped, Warning_
from cnn.export import export, export_model, export_weights, write
from cnn.filters import filters_picture
from cnn.gan_training import GanTraining
from cnn.html_report import html_report
from cnn.report import confused_picture
from cnn.run import Clock, Run
from cnn.spec import TrainingSpec

PROGRESS_SECONDS = 0.5
CHECKPOINT_SECONDS = 30.0
CHECKPOINT_COSTS = 400
"""Before a save lies at least so many times what the last one took, or the first one is expected to take: a quarter
of a percent, which the save at a run's end leaves below half a percent, unless the run is hardly longer than that."""
CHECKPOINT_MAX_SECONDS = 600.0
"""However long a save took, such as in a slow moment of the disk: no more work than this can be lost."""
SMALL_CHECKPOINT_BYTES = 32 * 2**20
"""Up to this size there is a checkpoint at the end of every epoch, however short."""


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
    init_weights: Path | None = None,
    resume_from: Path | None = None,
    stop: Callable[[], bool] = never,
) -> Iterator[Event]:
    """Train the network of `spec` on `data`, and tell what happens.

    Args:
        device: "cpu" or "cuda"; the caller has resolved "auto", and has set the number of threads, which the ranks of
            a run on several devices share.
        checkpoints, artifacts: folders for complete states and for the files of users; None for no files.
        init_weights: a safetensors file to start from; its bytes are part of what the run is. Needed where
            `training.init_from` names a job: this package knows no jobs.
        resume_from: a checkpoint (`step-<n>`) of the same spec, data and initial weights; when it is damaged, the next
            older one beside it is taken. The run ends with the same bytes as one that was never interrupted.
        stop: asked before every step; once it is true, the run writes a checkpoint and ends with Stopped.

    Raises Diverged, after the last good weights were exported, or another TrainingError.
    """
    yield Phase("preparing_data")
    if spec.training.init_from and init_weights is None:
        raise TrainingError(
            "initial_weights_missing", f"the weights of {spec.training.init_from} are not at hand", "platform"
        )
    training, place = spec.training, torch.device(device)
    exactness = numerics(place, training.precision, deterministic=training.deterministic)
    with shared_threads(training.devices), exactness:
        run = Run(spec, data, place, init_weights)
        if place.type == "cuda" and not training.deterministic:
            yield Warning_("training.deterministic is false: another run of this spec will differ in its last bits")
        yield from run.begin(resume_from)
        try:
            with Ranks(run, data, init_weights) if training.devices > 1 else nullcontext():
                yield from _stages(run, checkpoints, stop)
        except Diverged as error:
            if artifacts:
                yield export_weights(artifacts, "last_good.safetensors", run.learner.weights(), error.step - 1)
            raise
        if not run.complete:
            yield Stopped(*run.position)
            return
        yield from _finish(run, data, artifacts)


def _stages(run: Run, checkpoints: Path | None, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train until the run is complete or stopped."""
    for phase, stage in run.stages():
        yield Phase(phase)
        yield from _steps(run, stage, checkpoints, stop)
        if not stage.complete:
            return


def _finish(run: Run, data: Data, artifacts: Path | None) -> Iterator[Event]:
    """Judge a complete run, and write its files."""
    yield Phase("evaluating")
    result, report = run.result(data)
    if artifacts:
        yield Phase("exporting")
        yield from _export(artifacts, run, data, result, report)
    yield result


def _export(
    folder: Path, run: Run, data: Data, result: Result, report: Mapping[str, Any]
) -> Iterator[Artifact | Warning_]:
    """Write the files of a complete run."""
    spec, weights, step = run.spec, run.delivered_weights(), result.step
    yield from export(folder, spec, weights, run.metrics, report, step)
    yield from export_model(folder, run.learner.network, weights, data.test_images, step)
    pictures = {"confusion_matrix.png": (folder / "confusion_matrix.png").read_bytes()}
    for name, picture in _pictures(run, data, weights, report):
        yield write(folder, name, picture, "image/png", step)
        pictures[name] = picture
    page = html_report(spec, run.metrics, result, report, pictures, determinism_domain(run.device))
    yield write(folder, "report.html", page, "text/html", step)
    if run.gan:
        yield from run.gan.export(folder)


def _pictures(
    run: Run, data: Data, weights: Mapping[str, Tensor], report: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the pictures of this run's images and filters."""
    confused = report["splits"]["test"]["most_confused"]
    if confused:
        yield "most_confused.png", confused_picture(confused, data.test_images)
    yield "augmentation.png", contact_sheet(run.spec, data)
    filters = filters_picture(weights)
    if filters:
        yield "filters.png", filters


def _between_saves(run: Run) -> float:
    """Seconds from one save to the next, so that saving costs little."""
    return min(CHECKPOINT_COSTS * run.save_seconds, CHECKPOINT_MAX_SECONDS)


def _steps(run: Run, stage: Run | GanTraining, checkpoints: Path | None, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train until this stage of the run is complete or stopped."""
    yield stage.progress()
    saved, told = Clock(), Clock()
    while not stage.complete:
        stopping = stop()
        if stopping or saved.seconds > max(CHECKPOINT_SECONDS, _between_saves(run)):
            stage.check()
            yield from run.save(checkpoints)
            saved.restart()
        if stopping:
            return
        stage.advance()
        due = told.seconds > PROGRESS_SECONDS or stage.at_epoch_end
        if due or run.device.type == "cpu":  # where asking costs nothing
            stage.check()
        if due:
            yield stage.progress()
            told.restart()
        if stage.at_epoch_end:
            run.metrics.append(stage.end_epoch())
            yield run.metrics[-1]
            if isinstance(stage, GanTraining):
                yield from map(Warning_, stage.complaints)
            is_small = run.save_bytes <= SMALL_CHECKPOINT_BYTES
            if stage.complete or is_small or saved.seconds > _between_saves(run):
                yield from run.save(checkpoints)
                saved.restart()
