"""`bundle.tar`: all that is needed to use a trained network without this package, and the proof that it works."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from cnn.checkpoints import fsync
from cnn.events import Artifact

MEMBERS = ("model.safetensors", "model.onnx", "spec.json", "labels.json", "report.json", "onnx_parity.json")
"""The artifacts in it. The statistics of the input normalization are tensors `normalization.*` of the weights."""
NUM_GOLDEN = 8
FOLDER = "model"


def golden(network: nn.Module, weights: Mapping[str, Tensor], images: NDArray[np.uint8]) -> dict[str, bytes]:
    """Some images and torch's logits for them on a CPU, as the bytes of two `.npy` files."""
    chosen = np.ascontiguousarray(images[:NUM_GOLDEN])
    if next(iter(weights.values())).device.type != "cpu":  # which may round factors to tensorfloat32
        network, weights = copy.deepcopy(network).cpu(), {name: tensor.cpu() for name, tensor in weights.items()}
    training = network.training
    network.eval()
    with torch.inference_mode():
        logits = functional_call(network, dict(weights), (torch.from_numpy(chosen),)).numpy()
    network.train(training)
    return {"golden_images.npy": _npy(chosen), "golden_logits.npy": _npy(logits)}


def write_bundle(folder: Path, extra: Mapping[str, bytes], step: int) -> Artifact:
    """Tar the artifacts of `folder` that are `MEMBERS`, with `extra` files, `predict.py` and the digests of all.

    Equal files give an equal tar: no times, no owners, one order.
    """
    script = Path(__file__).with_name("standalone_predict.py").read_bytes()
    small = {**extra, "predict.py": script}
    names = [name for name in MEMBERS if (folder / name).exists()]
    digests = {name: _sha256(folder / name) for name in names}
    digests |= {name: hashlib.sha256(content).hexdigest() for name, content in small.items()}
    small["SHA256SUMS"] = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()
    temporary, path = folder / ".bundle.tar", folder / "bundle.tar"
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(small.items()):
            tar.addfile(_entry(name, len(content)), io.BytesIO(content))
        for name in names:
            with (folder / name).open("rb") as file:
                tar.addfile(_entry(name, (folder / name).stat().st_size), file)
    fsync(temporary)
    os.replace(temporary, path)
    fsync(folder)
    return Artifact("bundle.tar", path, "application/x-tar", step)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"{FOLDER}/{name}")
    entry.size = size
    return entry


def _npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
