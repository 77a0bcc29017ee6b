"""A job's progress in a terminal: one live bar with loss and accuracy, and a line for each epoch."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from server.client import Client
from server.schemas import Job, MetricPoint

SPLITS = ("train", "val")
SERIES = ("loss", "accuracy")


def follow(client: Client, job_id: str, console: Console) -> Job:
    """Show the job until it is terminal, and return it then."""
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=12)),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[metrics]}", table_column=Column(no_wrap=True)),
    )
    job = client.get(job_id)
    step = 0
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("queued", total=None, metrics="")
        for job in client.wait(job_id):
            if job.latest_metrics:
                step = _print_epochs(client, job_id, console, step)
            if job.progress is not None:
                bar.update(task, total=job.progress.num_steps, completed=job.progress.step)
            bar.update(task, description=_description(job), metrics=_newest(job))
    console.print(summary(job), markup=False, soft_wrap=True)
    return job


def _newest(job: Job) -> str:
    """Loss and accuracy on the best split there is: `test` at the end, before it `val`, else `train`."""
    if job.result is not None:
        return f"test loss {job.result.test_loss:.4f}  accuracy {job.result.test_accuracy:.4f}"
    split = "val" if "val_loss" in job.latest_metrics else "train"
    return _scores(split, job.latest_metrics)


def accuracy(job: Job) -> str:
    """The accuracy on the best split there is, in two words."""
    if job.result is not None:
        return f"test {job.result.test_accuracy:.4f}"
    values = {split: job.latest_metrics.get(f"{split}_accuracy") for split in reversed(SPLITS)}
    return next((f"{split} {value:.4f}" for split, value in values.items() if value is not None), "")


def summary(job: Job) -> str:
    """How the job ended, in a sentence or two."""
    if job.result is not None:
        scores = f"test accuracy {job.result.test_accuracy:.4f}, test loss {job.result.test_loss:.4f}"
        return f"{job.id} succeeded: {scores} ({job.result.weights} weights, epoch {job.result.epoch})"
    if job.error is not None:
        hint = f"\n{job.error.hint}" if job.error.hint else ""
        return f"{job.id} failed ({job.error.code}): {job.error.message}{hint}"
    return f"{job.id} {job.status}"


def _print_epochs(client: Client, job_id: str, console: Console, after_step: int) -> int:
    """Print a line for each epoch that ended after a step; the last one's step."""
    keys = [f"{split}_{series}" for split in SPLITS for series in SERIES]
    epochs: dict[int, list[MetricPoint]] = {}
    for point in client.metrics(job_id, keys=keys, from_step=after_step + 1):
        epochs.setdefault(point.step, []).append(point)
    for points in epochs.values():
        values = {point.key: point.value for point in points}
        scores = "   ".join(filter(None, (_scores(split, values) for split in SPLITS)))
        console.print(f"epoch {points[0].epoch:>3}  {scores}", markup=False, soft_wrap=True)
    return max(epochs, default=after_step)


def _scores(split: str, values: Mapping[str, float | None]) -> str:
    there = [series for series in SERIES if f"{split}_{series}" in values]
    numbers = ((series, values[f"{split}_{series}"]) for series in there)
    text = "  ".join(f"{series} {'not finite' if value is None else f'{value:.4f}'}" for series, value in numbers)
    return f"{split} {text}" if text else ""


def _description(job: Job) -> str:
    if job.queue is not None:
        return f"queued, place {job.queue.position}"
    if job.intent is not None:
        return f"{job.intent} asked for"
    if job.phase == "training" and job.progress is not None:
        return f"epoch {max(job.progress.epoch, 1)}/{job.progress.epochs}"
    return (job.phase or job.status).replace("_", " ")
