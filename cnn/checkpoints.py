"""Complete training states on disk: tensors as safetensors, everything else as JSON, no pickle.

A checkpoint is a folder `step-<n>` with `tensors.safetensors` and `state.json`, which holds the SHA-256 of both and
the names of the tensors that are stored as they lie in memory, channels last.
It appears whole or not at all, and survives a power cut from then on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cnn.errors import CheckpointInvalid

GENERATIONS = 2  # where the newest cannot be read, the one before it can
EXPECTED_BYTES_PER_SECOND = 400e6
"""How fast one is written to a disk of today, as long as nobody knows better."""
TENSORS = "tensors.safetensors"
STATE = "state.json"


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `step` into `folder`, and keep one older one. `state` must be JSON-able."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover)
    temporary = folder / f".step-{step}"
    temporary.mkdir()
    channels_last = [name for name, tensor in tensors.items() if _is_channels_last(tensor)]
    images = {name: tensors[name].permute(0, 2, 3, 1) for name in channels_last}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in {**tensors, **images}.items()}
    save_file(stored, temporary / TENSORS)
    with ThreadPoolExecutor(1) as beside:  # the processor's part takes about as long as the disk's
        tensors_sha256 = beside.submit(_sha256, temporary / TENSORS)
        fsync(temporary / TENSORS)
    content = {
        "step": step,
        "state": dict(state),
        "channels_last": channels_last,
        "tensors_sha256": tensors_sha256.result(),
    }
    (temporary / STATE).write_text(json.dumps({**content, "sha256": _digest(content)}))
    for path in (temporary / STATE, temporary):
        fsync(path)
    target = folder / f"step-{step}"
    if target.exists():
        _remove(target)
    temporary.rename(target)
    fsync(folder)
    older = [path for path in generations(folder) if step_of(path) < step]
    for old in older[GENERATIONS - 1 :]:
        _remove(old)
    return target


def load(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint. Raises CheckpointInvalid when a byte is not as it was written."""
    try:
        content = json.loads((path / STATE).read_text())
        if _digest(content) != content["sha256"] or content["step"] != step_of(path):
            raise CheckpointInvalid(f"checkpoint {path}: {STATE} is not as it was written")
        if _sha256(path / TENSORS) != content["tensors_sha256"]:
            raise CheckpointInvalid(f"checkpoint {path}: the SHA-256 of {TENSORS} is not the one that {STATE} names")
        tensors = load_file(path / TENSORS, device=str(device))
        images = {name: tensors[name].permute(0, 3, 1, 2) for name in content["channels_last"]}
        return tensors | images, content["state"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointInvalid(f"checkpoint {path} cannot be read: {error!r}") from error


def generations(folder: Path) -> list[Path]:
    """The complete checkpoints of a folder, the newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step whose state a checkpoint holds, from the name of its folder."""
    return int(path.name.removeprefix("step-"))


def fsync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_channels_last(tensor: Tensor) -> bool:
    """Whether safetensors would need a copy of it as it is, but none of (N, H, W, C)."""
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _remove(checkpoint: Path) -> None:
    """Take its name away first: half a checkpoint must not look like one."""
    removed = checkpoint.with_name(f".{checkpoint.name}-removed")
    checkpoint.rename(removed)
    shutil.rmtree(removed)


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of what `state.json` holds beside this digest."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
