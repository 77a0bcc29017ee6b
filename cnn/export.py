"""The files that a run hands to its user. Equal runs give equal bytes: no times, no names of jobs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from cnn.bundle import golden, write_bundle
from cnn.checkpoints import fsync
from cnn.events import NO_MODEL, Artifact, Metrics, Warning_
from cnn.onnx_export import ExportFailed, export_onnx
from cnn.report import AVERAGING, confusion_picture
from cnn.spec import TrainingSpec
from cnn.tensorboard_log import event_file

MAX_COMPARED = 8


def export(
    folder: Path,
    spec: TrainingSpec,
    weights: Mapping[str, Tensor],
    metrics: Sequence[Metrics],
    report: Mapping[str, Any],
    step: int,
) -> Iterator[Artifact]:
    """Write the artifacts of a complete run, whose delivered weights are those after `step`.

    `report` holds what `report.json` says beside how it averages: `splits`, by name, and more.
    """
    yield export_weights(folder, "model.safetensors", weights, step)
    yield write(folder, "spec.json", spec.model_dump_json(indent=2).encode() + b"\n", "application/json", step)
    labels = json.dumps(spec.dataset.info.labels, ensure_ascii=False, indent=2)
    yield write(folder, "labels.json", labels.encode() + b"\n", "application/json", step)
    yield write(folder, "metrics.csv", _table(metrics).encode(), "text/csv", step)
    yield write(folder, "events.out.tfevents", event_file(metrics), "application/octet-stream", step)
    text = json.dumps({**report, "averaging": AVERAGING}, ensure_ascii=False, indent=2, allow_nan=False)
    yield write(folder, "report.json", text.encode() + b"\n", "application/json", step)
    picture = confusion_picture(report["splits"]["test"]["confusion_matrix"], spec.dataset.info.labels)
    yield write(folder, "confusion_matrix.png", picture, "image/png", step)


def export_weights(folder: Path, name: str, weights: Mapping[str, Tensor], step: int) -> Artifact:
    """Write weights as safetensors. One metadata entry at most: the order of several is not defined."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    return write(folder, name, save(tensors, metadata={"format": "pt"}), "application/octet-stream", step)


def export_model(
    folder: Path, network: nn.Module, weights: Mapping[str, Tensor], images: NDArray[np.uint8], step: int
) -> Iterator[Artifact | Warning_]:
    """Write `model.onnx`, how close it is to torch on some of `images`, and the bundle; or tell why there is none.

    The bundle takes in what `export` wrote before.
    """
    try:
        model, report = export_onnx(network, weights, images[:MAX_COMPARED])
    except ExportFailed as error:
        yield Warning_(f"{NO_MODEL}: {error.message}")
        return
    yield write(folder, "model.onnx", model, "application/octet-stream", step)
    yield write(folder, "onnx_parity.json", report, "application/json", step)
    yield write_bundle(folder, golden(network, weights, images), step)


def _table(metrics: Sequence[Metrics]) -> str:
    """One row per epoch, with the deterministic series; empty where an epoch has no value of a series."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = dict.fromkeys(key for row in metrics for key in row.values)
    writer.writerow(["epoch", "step", *keys])
    for row in metrics:
        writer.writerow([row.epoch, row.step, *(repr(row.values[key]) if key in row.values else "" for key in keys)])
    return text.getvalue()


def write(folder: Path, name: str, content: bytes, media_type: str, step: int) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    temporary, path = folder / f".{name}", folder / name
    temporary.write_bytes(content)
    fsync(temporary)
    os.replace(temporary, path)
    fsync(folder)
    return Artifact(name, path, media_type, step)
