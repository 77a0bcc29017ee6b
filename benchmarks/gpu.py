"""Training on a GPU: images/s beside a plain PyTorch loop, share of the peak, seconds per epoch, launch overhead.

python benchmarks/gpu.py [--rounds 5] [--seconds 0.5]                  some six minutes of a GPU
python benchmarks/gpu.py --device cpu --models "small CNN" --images 640 --batch 32 --side 256 --rounds 1 --seconds 0.02

The second line tries the same code on a CPU, with fewer images and smaller matrices, and keeps no result.

Random pictures in CIFAR-10's shape, with random crops and mirroring, and Adam; the networks are that of throughput.py,
torchvision's ResNet-18, and a ResNet-20 four times as wide as the paper's. epochd trains as a run does, and asks every
few steps whether all is finite. The plain loop loads image by image through torchvision's transforms in `--workers`
processes, copies without waiting, and trains the same layers under torch.autocast, with a GradScaler for float16; what
its workers prepared while others were timed is left out. It may sum in any order and choose kernels by timing, as
epochd does with `deterministic: false`. The peak is the rate of a product of square matrices in the same precision and
the same rounds; a step counts as three times the multiply-accumulates of its plan.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alternation import Rates, alternate, table, write
from launches import EXPLAINED, HEADER, launches, wait
from peers import LR, Pictures
from throughput import TUTORIAL
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from cnn.data import Data
from cnn.determinism import numerics
from cnn.models import build_network
from cnn.precision import FORMATS, lowered
from cnn.run import Run
from cnn.spec import TrainingSpec

MODELS: dict[str, dict[str, Any]] = {
    "small CNN": TUTORIAL["model"],
    "ResNet-18": {"type": "resnet18"},
    "wide ResNet-20": {"type": "resnet", "depth": 20, "width": 64},
}
PRECISIONS = ("float32", "tensorfloat32", "bfloat16", "float16")
EPOCHD, FREE, PLAIN, FLOOR, PEAK = "epochd", "epochd, any order", "plain loop", "forward and backward", "matrices"
AUGMENTATION = [{"type": "random_crop", "padding": 4}, {"type": "horizontal_flip"}]
NORMALIZE = (v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.29,) * 3))
IDLE_SECONDS = 0.02
PREFETCH = 2
SHARED = Path("/dev/shm")


@dataclass(frozen=True)
class Bench:
    """What is the same for all that is measured; `steps` of a training follow each other before it is waited for."""

    device: torch.device
    data: Data
    batch: int
    side: int
    steps: int
    batches: Callable[[], tuple[Tensor, Tensor]]

    def run(self, model: dict[str, Any], precision: str, *, deterministic: bool = True) -> Run:
        training = {"batch_size": self.batch, "epochs": 10_000, "precision": precision, "deterministic": deterministic}
        parts = {"model": model, "augmentation": AUGMENTATION, "training": training, "split": {"val_fraction": 1 / 6}}
        spec = TrainingSpec.model_validate({**TUTORIAL, **parts, "dataset": {"type": "cifar10"}})
        return Run(spec, self.data, self.device, None)

    def work(
        self,
        step: Callable[[], object],
        precision: str,
        *,
        deterministic: bool,
        units: int,
        check: Callable[[], None] = lambda: None,
    ) -> Callable[[], int]:
        """Some steps, and a check behind them, until they are done; gives the units of all of them."""

        def work() -> int:
            with numerics(self.device, precision, deterministic=deterministic):
                for _ in range(self.steps):
                    step()
                check()
                wait(self.device)
            return self.steps * units

        return work


def fitting_workers(wanted: int, batch: int) -> int:
    """What they prepare lies in shared memory, of which a container may have little."""
    if not SHARED.is_dir():
        return wanted
    return min(wanted, shutil.disk_usage(SHARED).free // (2 * PREFETCH * batch * 4 * 3 * 32 * 32))


def taken_from_workers(
    data: Data, batch: int, workers: int, device: torch.device
) -> Callable[[], tuple[Tensor, Tensor]]:
    """What gives the next batch of a DataLoader, on its way to the device."""
    pictures = Pictures(data, len(data.train_labels), padding=4, normalize=NORMALIZE)
    options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": PREFETCH} if workers else {}
    options |= {"num_workers": workers, "pin_memory": device.type == "cuda"}
    loader = DataLoader(pictures, batch, shuffle=True, drop_last=True, **options)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    batches, last = endless(), 0.0

    def take() -> tuple[Tensor, Tensor]:
        nonlocal last
        if time.perf_counter() - last > IDLE_SECONDS:  # others were timed meanwhile
            for _ in range(workers * PREFETCH):
                next(batches)
        images, labels = next(batches)
        last = time.perf_counter()
        return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return take


def plain_step(bench: Bench, spec: TrainingSpec) -> Callable[[], None]:
    precision, network = spec.training.precision, spec.model.build(spec.dataset.info).to(bench.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=precision == "float16")

    def step() -> None:
        images, labels = bench.batches()
        optimizer.zero_grad()
        with lowered(precision, bench.device):
            loss = F.cross_entropy(network(images), labels)
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()

    return step


def bare_step(bench: Bench, spec: TrainingSpec) -> Callable[[], None]:
    """Forward and backward of the engine's network, on one batch and again."""
    network: nn.Module = build_network(spec).to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.from_numpy(bench.data.train_images[: bench.batch]).to(bench.device)
    labels = torch.from_numpy(bench.data.train_labels[: bench.batch]).to(bench.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        network.zero_grad()
        with lowered(spec.training.precision, bench.device):
            loss = F.cross_entropy(network(images), labels)
        torch.autograd.backward(loss)

    return step


def variants(bench: Bench, run: Run, free: Run) -> dict[str, Callable[[], int]]:
    """All that is compared in one precision: images, and thousands of floating-point operations of a product."""
    precision = run.spec.training.precision
    a, b = (torch.randn(bench.side, bench.side, device=bench.device).to(FORMATS.get(precision)) for _ in range(2))
    found = {
        name: bench.work(one.advance, precision, deterministic=one is run, units=bench.batch, check=one.check)
        for name, one in ((EPOCHD, run), (FREE, free))
    }
    plain, bare = plain_step(bench, run.spec), bare_step(bench, run.spec)
    found[PLAIN] = bench.work(plain, precision, deterministic=False, units=bench.batch)
    found[FLOOR] = bench.work(bare, precision, deterministic=True, units=bench.batch)
    found[PEAK] = bench.work(lambda: a @ b, precision, deterministic=False, units=2 * bench.side**3 // 1000)
    return {f"{precision}: {name}": work for name, work in found.items()}


def row(rates: Rates, precision: str, name: str, kiloflop: float) -> list[str]:
    own, ratios = f"{precision}: {name}", [f"{precision}: {other}" for other in (PLAIN, FLOOR, PEAK)]
    (plain, low, high), (of_floor, *_), (of_peak, *_) = (rates.ratio(own, to) for to in ratios)
    cells = [f"{rates.median(own):,.0f}", f"{plain:.2f}", f"{low:.2f} to {high:.2f}", f"{of_floor:.3f}"]
    return [own, *cells, f"{100 * kiloflop * of_peak:.1f}", rates.share(own)]


def epoch_seconds(bench: Bench, run: Run, count: int) -> list[str]:
    """Medians of training, of the evaluation behind it, and of both; the epoch that has begun is left out."""
    found: list[tuple[float, float]] = []
    with numerics(bench.device, run.spec.training.precision, deterministic=True):
        while len(found) <= count:
            start = time.perf_counter()
            run.advance()
            while not run.at_epoch_end:
                run.advance()
            run.check()
            wait(bench.device)
            trained = time.perf_counter()
            run.end_epoch()
            found.append((trained - start, time.perf_counter() - trained))
    training, evaluation = (statistics.median(seconds) for seconds in zip(*found[1:], strict=True))
    return [f"{seconds:.3f}" for seconds in (training, evaluation, training + evaluation)]


def queued(bench: Bench, run: Run) -> Iterator[list[str]]:
    with numerics(bench.device, run.spec.training.precision, deterministic=True):
        for name, step in ((EPOCHD, run.advance), (FLOOR, bare_step(bench, run.spec))):
            yield [name, *launches(step, bench.device)]


def place(device: torch.device) -> str:
    if device.type != "cuda":
        return "On a CPU, to try the code."
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB; CUDA {torch.version.cuda}, cuDNN {cudnn}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a variant in a round, at least")
    parser.add_argument("--images", type=int, default=50_000, help="of an epoch; a fifth as many are evaluated")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--side", type=int, default=8192, help="of the square matrices")
    parser.add_argument("--epochs", type=int, default=3, help="that are timed")
    parser.add_argument("--workers", type=int, default=8, help="processes of the plain loop's DataLoader")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    device, count = torch.device(arguments.device), arguments.images * 6 // 5
    on_gpu = device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("there is no GPU here that torch can use; --device cpu tries the same code on a CPU")
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), np.uint8)
    data = Data(pixels, np.arange(count) % 10, pixels[:1], np.zeros(1, np.int64), "sha256:0")
    workers = fitting_workers(arguments.workers, arguments.batch)
    batches = taken_from_workers(data, arguments.batch, workers, device)
    bench = Bench(device, data, arguments.batch, arguments.side, 10 if on_gpu else 1, batches)
    tables, epochs, queues, warnings = [], [], [], []
    for name in arguments.models:
        runs = {precision: bench.run(MODELS[name], precision) for precision in PRECISIONS}
        works: dict[str, Callable[[], int]] = {}
        for precision, run in runs.items():
            works |= variants(bench, run, bench.run(MODELS[name], precision, deterministic=False))
        rates = alternate(works, rounds=arguments.rounds, seconds=arguments.seconds)
        works.clear()
        kiloflop = 6 * runs["float32"].spec.plan().macs / 1000
        rows = [row(rates, precision, each, kiloflop) for precision in runs for each in (EPOCHD, FREE, PLAIN, FLOOR)]
        header = ["", "images/s", "of the plain loop", "95 % interval", "of the floor", "% of the peak", "clean"]
        tables += [f"## {name}, batch {arguments.batch}", table(header, rows)]
        warnings.append(rates.warning)
        for precision, run in runs.items():
            epochs.append([f"{name}, {precision}", *epoch_seconds(bench, run, arguments.epochs)])
            queues += [[f"{name}, {precision}: {line[0]}", *line[1:]] for line in queued(bench, run)]
    tables += [
        f"## An epoch of {arguments.images:,} images, and the evaluation of {arguments.images // 5:,}",
        table(["", "training (s)", "evaluation (s)", "together (s)"], epochs),
        "## What a step launches",
        EXPLAINED,
        table(HEADER, queues),
    ]
    options = " ".join(f"--{key} {value}" for key, value in vars(arguments).items() if key != "models")
    notes = [
        place(device),
        f"`python benchmarks/gpu.py {options}`; {workers} workers load for the plain loop",
        *warnings,
    ]
    write("gpu", "Training on a GPU", tables, notes, keep=on_gpu)


if __name__ == "__main__":
    main()
