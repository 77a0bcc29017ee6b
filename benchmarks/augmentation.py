"""Images per second of each augmentation, beside torchvision's v2 (image by image) and kornia's (by the batch).

python benchmarks/augmentation.py [--threads N] [--rounds 10] [--only NAME ...]

Every image gets parameters of its own: v2 draws them once a call, so that it is called image by image. Batches of uint8
go in and batches of float32 come out, as a network takes them: epochd and v2 keep uint8 where they can, and what is
still uint8 at the end is converted at once; kornia works on floats from the beginning. kornia is left out, which the
table says, where it is not installed (`pip install kornia`). Where `python -m cnn.native` has compiled kernels, epochd
interpolates with them, as it does in training.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import os
import statistics
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from alternation import Rates, alternate, table, write
from pydantic import TypeAdapter
from throughput import KERNELS_MISSING
from torch import Tensor
from torchvision.transforms import v2

from cnn.augmentation import Augmentation, build_augmentation
from cnn.native import library
from cnn.transforms.draws import Draws

SHAPES = {(1, 28, 28): 128, (3, 32, 32): 128, (3, 224, 224): 32}
"""Batch size of each shape of images."""
FREED = 7 * 2**20
"""Float32 values of a block that is freed before all else, as in training: glibc's malloc keeps what it gets back once
it got back a block of up to 32 MiB, and otherwise gives the pages of results to the system, to take them again."""
HAS_KORNIA = importlib.util.find_spec("kornia") is not None
KERNELS_USED = (
    "epochd interpolates (affine, resized crop, perspective) with the kernels that `python -m cnn.native` compiles."
)
SIZE = "size"
"""Stands for height and width of the images in the arguments of v2 and kornia."""

OURS: dict[str, list[dict[str, Any]]] = {
    "crop": [{"type": "random_crop", "padding": 2}],
    "flip": [{"type": "horizontal_flip"}],
    "crop + flip": [{"type": "random_crop", "padding": 2}, {"type": "horizontal_flip"}],
    "affine": [
        {"type": "rotate", "degrees": 15},
        {"type": "zoom", "min_factor": 0.9, "max_factor": 1.1},
        {"type": "translate", "max_shift": 0.1},
    ],
    "resized crop": [{"type": "random_resized_crop", "min_area": 0.5}],
    "perspective": [{"type": "perspective", "distortion_scale": 0.3, "p": 0.5}],
    "brightness + contrast": [{"type": "color_jitter", "brightness": 0.2, "contrast": 0.2}],
    "colour jitter": [{"type": "color_jitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}],
    "grayscale": [{"type": "grayscale", "p": 0.1}],
    "blur": [{"type": "gaussian_blur", "max_sigma": 1, "p": 1}],
    "erasing": [{"type": "random_erasing", "value": 0}],
    "erasing by noise": [{"type": "random_erasing", "value": "noise"}],
}
NEEDS_COLOUR = ("colour jitter", "grayscale")

V2: dict[str, tuple[Any, ...]] = {
    "crop": (("RandomCrop", (SIZE,), {"padding": 2}),),
    "flip": (("RandomHorizontalFlip", (), {}),),
    "crop + flip": (("RandomCrop", (SIZE,), {"padding": 2}), ("RandomHorizontalFlip", (), {})),
    "affine": (("RandomAffine", (15, (0.1, 0.1), (0.9, 1.1)), {"interpolation": v2.InterpolationMode.BILINEAR}),),
    "resized crop": (("RandomResizedCrop", (SIZE,), {"scale": (0.5, 1), "antialias": False}),),
    "perspective": (("RandomPerspective", (0.3, 0.5), {}),),
    "brightness + contrast": (("ColorJitter", (0.2, 0.2), {}),),
    "colour jitter": (("ColorJitter", (0.2, 0.2, 0.2, 0.05), {}),),
    "grayscale": (("RandomGrayscale", (0.1,), {}),),
    "blur": (("GaussianBlur", (7, (0.01, 1)), {}),),
    "erasing": (("RandomErasing", (0.5,), {}),),
    "erasing by noise": (("RandomErasing", (0.5,), {"value": "random"}),),
}
"""Name, arguments and keyword arguments of each class."""
KORNIA: dict[str, tuple[Any, ...]] = {
    "crop": (("RandomCrop", (SIZE,), {"padding": 2}),),
    "flip": (("RandomHorizontalFlip", (), {}),),
    "crop + flip": (("RandomCrop", (SIZE,), {"padding": 2}), ("RandomHorizontalFlip", (), {})),
    "affine": (("RandomAffine", (15, (0.1, 0.1), (0.9, 1.1)), {"p": 1}),),
    "resized crop": (("RandomResizedCrop", (SIZE, (0.5, 1)), {"p": 1}),),
    "perspective": (("RandomPerspective", (0.3,), {"p": 0.5}),),
    "brightness + contrast": (("ColorJitter", (0.2, 0.2), {"p": 1}),),
    "colour jitter": (("ColorJitter", (0.2, 0.2, 0.2, 0.05), {"p": 1}),),
    "grayscale": (("RandomGrayscale", (), {"p": 0.1}),),
    "blur": (("RandomGaussianBlur", ((7, 7), (0.01, 1)), {"p": 1}),),
    "erasing": (("RandomErasing", (), {"p": 0.5}),),
}


def ours(name: str, images: Tensor) -> Callable[[], int]:
    members = [TypeAdapter(Augmentation).validate_python(content) for content in OURS[name]]
    augment = build_augmentation(members, num_classes=10)
    labels, samples = torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images))
    generator = torch.Generator()

    def work() -> int:
        augment(images, labels, Draws(generator, samples, epoch=1, seed=0))[0].float()
        return len(images)

    return work


def built(package: ModuleType, members: tuple[Any, ...], images: Tensor) -> list[Any]:
    size = tuple(images.shape[2:])
    return [
        getattr(package, name)(*(size if argument == SIZE else argument for argument in arguments), **fields)
        for name, arguments, fields in members
    ]


def torchvision(name: str, images: Tensor) -> Callable[[], int]:
    transform = v2.Compose(built(v2, V2[name], images))

    def work() -> int:
        torch.stack([transform(image) for image in images]).float()
        return len(images)

    return work


def kornia(name: str, images: Tensor) -> Callable[[], int]:
    chain = torch.nn.Sequential(*built(importlib.import_module("kornia.augmentation"), KORNIA[name], images))

    def work() -> int:
        chain(images.float().div_(255))
        return len(images)

    return work


def measured(name: str, images: Tensor, rounds: int, seconds: float) -> Rates:
    variants = {"epochd": ours(name, images), "v2": torchvision(name, images)}
    if HAS_KORNIA and name in KORNIA:
        variants["kornia"] = kornia(name, images)
    return alternate(variants, rounds=rounds, seconds=seconds)


def row(name: str, rates: Rates) -> list[str]:
    cells = [name]
    for peer in ("epochd", "v2", "kornia"):
        cells.append(f"{rates.median(peer):,.0f}" if peer in rates.per_second else "–")
    for peer in ("v2", "kornia"):
        cells.append(f"{rates.ratio('epochd', peer)[0]:.1f}" if peer in rates.per_second else "–")
    return [*cells, rates.share("epochd")]


def means(all_rates: list[Rates]) -> str:
    """Geometric means of the ratios to each peer, and to the faster one."""
    ratios: dict[str, list[float]] = {"v2": [], "kornia": [], "the fastest peer": []}
    for rates in all_rates:
        each = {peer: rates.ratio("epochd", peer)[0] for peer in ("v2", "kornia") if peer in rates.per_second}
        for peer, ratio in {**each, "the fastest peer": min(each.values())}.items():
            ratios[peer].append(ratio)
    return f"Geometric mean: {', '.join(f'{geometric(r):.1f} times {peer}' for peer, r in ratios.items() if r)}."


def geometric(ratios: list[float]) -> float:
    return math.exp(statistics.mean(map(math.log, ratios)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--only", nargs="+", choices=OURS, default=list(OURS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.zeros(FREED).add_(1)
    kernels = library.find()
    library.use(kernels)
    peers = f"torchvision {version('torchvision')}, kornia {version('kornia') if HAS_KORNIA else 'is not installed'}."
    explained = f"Images per second, uint8 in, float32 out; ratios are medians over the rounds. {peers}"
    tables, notes = [], [explained, KERNELS_USED if kernels else KERNELS_MISSING]
    for shape, batch in SHAPES.items():
        images = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
        names = [name for name in arguments.only if shape[0] == 3 or name not in NEEDS_COLOUR]
        rates = {name: measured(name, images, arguments.rounds, arguments.seconds) for name in names}
        header = ["", "epochd", "v2", "kornia", "epochd / v2", "epochd / kornia", "clean"]
        body = table(header, [row(name, rate) for name, rate in rates.items()])
        title = f"## {' × '.join(map(str, shape))}, batch {batch}"
        tables.append("\n\n".join([title, body, means(list(rates.values()))]))
        notes += [f"{name}: {rate.warning}" for name, rate in rates.items() if rate.warning]
    write("augmentation", "Augmentation", tables, notes)


if __name__ == "__main__":
    main()
