"""The files that a run hands to its user. Equal runs give equal bytes: no times, no names of jobs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from cnn.checkpoints import fsync
from cnn.events import Artifact, Metrics
from cnn.spec import TrainingSpec


def export(
    folder: Path, spec: TrainingSpec, weights: Mapping[str, Tensor], metrics: Sequence[Metrics], step: int
) -> Iterator[Artifact]:
    """Write the artifacts of a complete run, whose delivered weights are those after `step`."""
    yield export_weights(folder, "model.safetensors", weights, step)
    yield _write(folder, "spec.json", spec.model_dump_json(indent=2).encode() + b"\n", "application/json", step)
    labels = json.dumps(spec.dataset.info.labels, ensure_ascii=False, indent=2)
    yield _write(folder, "labels.json", labels.encode() + b"\n", "application/json", step)
    yield _write(folder, "metrics.csv", _table(metrics).encode(), "text/csv", step)


def export_weights(folder: Path, name: str, weights: Mapping[str, Tensor], step: int) -> Artifact:
    """Write weights as safetensors. One metadata entry at most: the order of several is not defined."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    return _write(folder, name, save(tensors, metadata={"format": "pt"}), "application/octet-stream", step)


def _table(metrics: Sequence[Metrics]) -> str:
    """One row per epoch, with the deterministic series."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "step", *metrics[0].values])
    for row in metrics:
        writer.writerow([row.epoch, row.step, *map(repr, row.values.values())])
    return text.getvalue()


def _write(folder: Path, name: str, content: bytes, media_type: str, step: int) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    temporary, path = folder / f".{name}", folder / name
    temporary.write_bytes(content)
    fsync(temporary)
    os.replace(temporary, path)
    fsync(folder)
    return Artifact(name, path, media_type, step)
