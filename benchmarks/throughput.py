"""Images per second of whole training steps, beside a plain PyTorch loop and beside forward and backward alone.

python benchmarks/throughput.py [--threads N] [--rounds 10] [--data-dir epochd-data]

All train the same network with Adam on batches of 128 Fashion-MNIST images, with random crops and mirroring: two
convolutions, two dense layers and dropout, as in most tutorials. A second table adds augmentation step by step.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from alternation import Rates, alternate, table, write
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cnn.batches import Batches
from cnn.data import Data
from cnn.datasets import FashionMNIST
from cnn.learner import Learner
from cnn.models import build_network
from cnn.spec import TrainingSpec

BATCH = 128
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


def engine(spec: TrainingSpec, data: Data) -> Callable[[], int]:
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
        epoch = -(-step // batches.per_epoch)
        learner.update(epoch, step, *batches.at(epoch, step), 0.001, batches.samples(epoch, step))
        learner.diverged()
        return BATCH

    return work


def forward_and_backward(data: Data) -> Callable[[], int]:
    """Of the engine's network, with its normalization and dropout, on one batch again and again."""
    network = build_network(spec_with([])).to(memory_format=torch.channels_last).train()
    images, labels = torch.from_numpy(data.train_images[:BATCH]), torch.from_numpy(data.train_labels[:BATCH])

    def work() -> int:
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        return BATCH

    return work


class Pictures(Dataset[tuple[Tensor, int]]):
    """A dataset as in the tutorials: one PIL image, its transforms, one tensor."""

    def __init__(self, data: Data) -> None:
        self._images, self._labels = data.train_images[:NUM_IMAGES, 0], data.train_labels[:NUM_IMAGES]
        self._transform = v2.Compose(
            [
                v2.RandomCrop(28, padding=2),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.286,), (0.353,)),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index])


def plain_loop(data: Data) -> Callable[[], int]:
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    optimizer = torch.optim.Adam(network.parameters())
    loader = DataLoader(Pictures(data), batch_size=BATCH, shuffle=True, drop_last=True)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    batches = endless()

    def work() -> int:
        images, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        return BATCH

    return work


def rows(rates: Rates, reference: str) -> list[list[str]]:
    lines = []
    for name in rates.per_second:
        ratio, low, high = rates.ratio(name, reference)
        lines.append(
            [name, f"{rates.median(name):,.0f}", f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", rates.share(name)]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = FashionMNIST().load(arguments.data_dir)

    floor = "forward and backward alone"
    variants = {
        "plain PyTorch loop": plain_loop(data),
        "epochd": engine(spec_with(CROP_AND_FLIP), data),
        floor: forward_and_backward(data),
    }
    whole = alternate(variants, rounds=arguments.rounds, seconds=arguments.seconds)
    steps: dict[str, Callable[[], int]] = {floor: forward_and_backward(data)}
    augmentation: list[dict[str, Any]] = []
    for name, members in CHAIN.items():
        augmentation += members
        steps[name] = engine(spec_with(augmentation), data)
    chain = alternate(steps, rounds=arguments.rounds, seconds=arguments.seconds)
    tables = [
        "## Beside a plain loop",
        table(["", "images/s", "of the plain loop", "95 % interval", "clean"], rows(whole, "plain PyTorch loop")),
        "## Share of forward and backward",
        table(["", "images/s", "of the floor", "95 % interval", "clean"], rows(chain, floor)),
    ]
    write("throughput", "Throughput", tables, [whole.warning, chain.warning])


if __name__ == "__main__":
    main()
