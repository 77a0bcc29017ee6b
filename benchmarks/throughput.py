"""Images per second of whole training steps, beside a plain PyTorch loop, frameworks, and forward and backward alone.

python benchmarks/throughput.py [--threads N] [--rounds 10] [--data-dir epochd-data]

All train the same network with Adam on batches of 128 Fashion-MNIST images, with random crops and mirroring: two
convolutions, two dense layers and dropout, as in most tutorials. A second table adds augmentation step by step.
Takes some seven minutes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from alternation import Rates, alternate, table, write
from peers import BATCH, FRAMEWORKS, PLAIN, installed_peers, versions
from torch.nn import functional as F

from cnn.batches import Batches
from cnn.data import Data
from cnn.datasets import FashionMNIST
from cnn.determinism import set_threads
from cnn.learner import Learner
from cnn.models import build_network
from cnn.native import library
from cnn.spec import TrainingSpec

OURS = "epochd"
WITHOUT_KERNELS = "epochd without compiled kernels"
FLOOR = "forward and backward alone"
KERNELS_USED = (
    "epochd computes the first block and max-pooling with the kernels that `python -m cnn.native` compiles. The floor "
    "is that of torch's own layers in their best order and layout, so that a share of it can be above 1."
)
KERNELS_MISSING = "No kernels are compiled here (`python -m cnn.native`)."
NUM_IMAGES = 12_800
TUTORIAL: dict[str, Any] = {
    "dataset": {"type": "fashion_mnist"},
    "model": {
        "type": "layers",
        "layers": [
            {"type": "conv2d", "out_channels": 32, "kernel_size": 3, "padding": "same"},
            {"type": "relu"},
            {"type": "max_pool2d", "kernel_size": 2},
            {"type": "conv2d", "out_channels": 64, "kernel_size": 3, "padding": "same"},
            {"type": "relu"},
            {"type": "max_pool2d", "kernel_size": 2},
            {"type": "flatten"},
            {"type": "linear", "out_features": 128},
            {"type": "relu"},
            {"type": "dropout", "keep_prob": 0.5},
            {"type": "linear", "out_features": 10},
        ],
    },
    "optimizer": {"type": "adam"},
    "training": {"batch_size": BATCH},
}
CROP_AND_FLIP = [{"type": "random_crop", "padding": 2}, {"type": "horizontal_flip"}]
CHAIN: dict[str, list[dict[str, Any]]] = {
    "no augmentation": [],
    "crop, flip": CROP_AND_FLIP,
    "+ affine": [{"type": "rotate"}, {"type": "zoom"}],
    "+ blur": [{"type": "gaussian_blur", "max_sigma": 1}],
    "+ jitter": [{"type": "color_jitter"}],
    "+ erasing": [{"type": "random_erasing"}],
}
"""Each line adds to the lines above it."""


def spec_with(augmentation: list[dict[str, Any]]) -> TrainingSpec:
    return TrainingSpec.model_validate({**TUTORIAL, "augmentation": augmentation})


def engine(spec: TrainingSpec, data: Data, kernels: library.Library | None) -> Callable[[], int]:
    """Steps as a run takes them: batch, augmentation, update, and the question whether all is finite."""
    images, labels = data.train_images[:NUM_IMAGES], data.train_labels[:NUM_IMAGES]
    learner = Learner(spec, images, labels, torch.device("cpu"))
    batches = Batches(
        torch.from_numpy(images),
        torch.from_numpy(labels),
        size=BATCH,
        drop_last=True,
        augmentation=spec.augmentation,
        num_classes=10,
        seed=0,
    )
    step = 0

    def work() -> int:
        nonlocal step
        step += 1
        library.use(kernels)
        epoch = -(-step // batches.per_epoch)
        learner.update(epoch, step, *batches.at(epoch, step), 0.001, batches.samples(epoch, step))
        learner.diverged()
        return BATCH

    return work


def forward_and_backward(data: Data) -> Callable[[], int]:
    """Of the engine's network, with its normalization and dropout and torch's own layers, on one batch and again."""
    network = build_network(spec_with([])).to(memory_format=torch.channels_last).train()
    images, labels = torch.from_numpy(data.train_images[:BATCH]), torch.from_numpy(data.train_labels[:BATCH])

    def work() -> int:
        library.use(None)
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        return BATCH

    return work


def beside_peers(rates: Rates) -> str:
    lines = []
    for name in rates.per_second:
        ratio, low, high = rates.ratio(name, PLAIN)
        interval = f"{low:.3f} to {high:.3f}"
        ours, *_ = rates.ratio(OURS, name)
        lines.append([name, f"{rates.median(name):,.0f}", f"{ratio:.3f}", interval, f"{ours:.2f}", rates.share(name)])
    lines += [[name, "not installed", "", "", "", ""] for name in FRAMEWORKS if name not in rates.per_second]
    return table(["", "images/s", "of the plain loop", "95 % interval", "epochd over it", "clean"], lines)


def beside_floor(rates: Rates) -> str:
    lines = []
    for name in rates.per_second:
        ratio, low, high = rates.ratio(name, FLOOR)
        interval = f"{low:.3f} to {high:.3f}"
        lines.append([name, f"{rates.median(name):,.0f}", f"{ratio:.3f}", interval, rates.share(name)])
    return table(["", "images/s", "of the floor", "95 % interval", "clean"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a variant in a round, at least")
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    data = FashionMNIST().load(arguments.data_dir)

    variants = installed_peers(data)
    kernels = library.find()
    variants |= {OURS: engine(spec_with(CROP_AND_FLIP), data, kernels)}
    if kernels:
        variants |= {WITHOUT_KERNELS: engine(spec_with(CROP_AND_FLIP), data, None)}
    variants |= {FLOOR: forward_and_backward(data)}
    whole = alternate(variants, rounds=arguments.rounds, seconds=arguments.seconds)
    steps: dict[str, Callable[[], int]] = {FLOOR: forward_and_backward(data)}
    augmentation: list[dict[str, Any]] = []
    for name, members in CHAIN.items():
        augmentation += members
        steps[name] = engine(spec_with(augmentation), data, kernels)
    chain = alternate(steps, rounds=arguments.rounds, seconds=arguments.seconds)
    tables = [
        "## Beside a plain loop and frameworks",
        beside_peers(whole),
        "## Share of forward and backward",
        beside_floor(chain),
    ]
    notes = [
        f"`python benchmarks/throughput.py --threads {arguments.threads} --rounds {arguments.rounds} "
        f"--seconds {arguments.seconds}`; {versions()}",
        KERNELS_USED if kernels else KERNELS_MISSING,
        whole.warning,
        chain.warning,
    ]
    write("throughput", "Throughput", tables, notes)


if __name__ == "__main__":
    main()
