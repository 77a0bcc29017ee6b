"""Seconds of training to an accuracy on Fashion-MNIST: examples/fashion_fast.json, and the recipe of the tutorials.

python benchmarks/time_to_accuracy.py [--threads N] [--seeds 5] [--data-dir epochd-data]       some fourteen minutes

The fast recipe's learning rate rises and falls over the whole run, so that each target has a length of its own. Recipe
and lengths were chosen on 10,000 training images that were held out for that (`split.val_fraction` 0.1667), with two
seeds a setting, one at a time: width 32 to 96, batch 64 to 256, learning rate, label smoothing, weight decay, crops,
averaged weights; a length is the shortest that was at least 0.7 points above its target there. (For 93 % five epochs
were just above, and eight are a guess.) The test split is looked at only here. A target counts as reached when the mean
over the seeds does.

The recipe of the tutorials is the network, augmentation and optimizer of throughput.py on all 60,000 images, until the
test accuracy first is 90 %. As people run it, it is a plain loop. Its epochs are counted in this engine, where it takes
the same steps in law; its seconds are these epochs times those that the plain loop of peers.py takes for so many images
in the same minutes. `--real` trains the plain loop itself to 90 % once. Seconds are of training, without loading and
evaluating.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from alternation import Gate, table, write
from peers import LR, NORMALIZE, loader, plain_loop, tutorial_network
from throughput import CROP_AND_FLIP, spec_with
from torch import Tensor, nn
from torch.nn import functional as F

from cnn.data import Data
from cnn.datasets import FashionMNIST
from cnn.determinism import set_threads
from cnn.evaluation import evaluate
from cnn.events import Metrics, Result
from cnn.native import library
from cnn.run import Run
from cnn.spec import TrainingSpec
from cnn.training import train

FAST = Path(__file__).parent.parent / "examples" / "fashion_fast.json"
LENGTHS = {0.90: 1, 0.91: 2, 0.92: 3, 0.93: 8}
"""Epochs of the fast recipe for each target."""
TUTORIAL_TARGET = 0.90
MAX_EPOCHS = 20
PLAIN_SECONDS = 8.0


@dataclass(frozen=True)
class Fast:
    """A run of the fast recipe."""

    seconds: float
    accuracy: float
    clean: bool


@dataclass(frozen=True)
class Tutorial:
    """A run of the tutorials' recipe, until it has reached its target."""

    epochs: int
    seconds: float
    plain_seconds: float
    """What the plain loop takes for as many images."""
    clean: bool


def fast(epochs: int, seed: int, data: Data) -> Fast:
    spec = TrainingSpec.model_validate_json(FAST.read_bytes())
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": epochs, "seed": seed})})
    gate = Gate()
    events = list(train(spec, data))
    seconds = sum(event.timings["seconds"] for event in events if isinstance(event, Metrics))
    return Fast(seconds, next(event.test_accuracy for event in events if isinstance(event, Result)), gate.clean)


def tutorial(seed: int, data: Data, plain: Callable[[], int]) -> Tutorial:
    spec = spec_with(CROP_AND_FLIP)
    training = spec.training.model_copy(update={"epochs": MAX_EPOCHS, "seed": seed})
    split = spec.split.model_copy(update={"val_fraction": 0.0})
    run = Run(spec.model_copy(update={"training": training, "split": split}), data, torch.device("cpu"), None)
    gate, seconds, accuracy = Gate(), 0.0, 0.0
    while accuracy < TUTORIAL_TARGET and not run.complete:
        run.advance()
        run.check()
        if run.at_epoch_end:
            seconds += run.end_epoch().timings["seconds"]
            accuracy = test_accuracy(run.learner.network, run.learner.weights(), data)
    if accuracy < TUTORIAL_TARGET:
        raise RuntimeError(f"seed {seed} has an accuracy of {accuracy:.4f} after {run.epoch} epochs, not of 90 %")
    start, num_images = time.perf_counter(), 0
    while time.perf_counter() - start < PLAIN_SECONDS:
        num_images += plain()
    plain_seconds = run.epoch * len(data.train_labels) * (time.perf_counter() - start) / num_images
    return Tutorial(run.epoch, seconds, plain_seconds, gate.clean)


def real_tutorial(data: Data) -> tuple[int, float]:
    """Epochs and seconds of the plain loop itself until it has reached the target."""
    torch.manual_seed(0)
    network = tutorial_network()
    judged = nn.Sequential(*NORMALIZE, network)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    batches = loader(data, len(data.train_labels))
    epoch, seconds, accuracy = 0, 0.0, 0.0
    while accuracy < TUTORIAL_TARGET:
        epoch, start = epoch + 1, time.perf_counter()
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
        seconds += time.perf_counter() - start
        accuracy = test_accuracy(judged, judged.state_dict(), data)
    return epoch, seconds


def test_accuracy(network: nn.Module, weights: Mapping[str, Tensor], data: Data) -> float:
    return evaluate(network, weights, torch.from_numpy(data.test_images), torch.from_numpy(data.test_labels)).accuracy


def mean(values: Sequence[float], digits: int = 1) -> str:
    """With its standard error."""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{error}"


def fast_rows(runs: Mapping[float, Sequence[Fast]], first: Sequence[float]) -> list[list[str]]:
    lines = []
    for target, found in runs.items():
        seconds, accuracies = [run.seconds for run in found], [100 * run.accuracy for run in found]
        above = sum(accuracy >= 100 * target for accuracy in accuracies)
        reached = "yes" if statistics.mean(accuracies) >= 100 * target else "no"
        line = [
            f"{100 * target:.0f} %",
            str(LENGTHS[target]),
            mean(seconds),
            ratio(seconds, first),
            mean(accuracies, 2),
        ]
        lines.append([*line, f"{above}/{len(found)}", reached])
    return lines


def tutorial_rows(runs: Sequence[Tutorial], real: tuple[int, float] | None, first: Sequence[float]) -> list[list[str]]:
    epochs = mean([run.epochs for run in runs])
    by_loop, by_engine = [run.plain_seconds for run in runs], [run.seconds for run in runs]
    lines = [
        ["plain loop: epochs of the engine, seconds of the loop", epochs, mean(by_loop), ratio(by_loop, first)],
        ["this engine", epochs, mean(by_engine), ratio(by_engine, first)],
    ]
    if real:
        lines.append(["plain loop itself, one seed", str(real[0]), f"{real[1]:.1f}", ratio([real[1]], first)])
    return lines


def ratio(values: Sequence[float], to: Sequence[float]) -> str:
    """Of the means, with the standard error that follows from theirs."""
    found = statistics.mean(values) / statistics.mean(to)
    relative = [statistics.stdev(part) / len(part) ** 0.5 / statistics.mean(part) for part in (values, to) if part[1:]]
    return f"{found:.1f} ± {found * math.hypot(*relative):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tutorial-seeds", type=int, default=3)
    parser.add_argument("--targets", type=float, nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--real", action="store_true", help="train the plain loop to its target once, too")
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    library.use(library.find())
    data = FashionMNIST().load(arguments.data_dir)
    plain = plain_loop(data)
    runs: dict[float, list[Fast]] = {target: [] for target in arguments.targets}
    tutorials = []
    for seed in range(arguments.seeds):
        for target, found in runs.items():
            found.append(fast(LENGTHS[target], seed, data))
        if seed < arguments.tutorial_seeds:
            tutorials.append(tutorial(seed, data, plain))
    command = (
        f"`python benchmarks/time_to_accuracy.py --threads {arguments.threads} --seeds {arguments.seeds} "
        f"--tutorial-seeds {arguments.tutorial_seeds} --targets {' '.join(map(str, arguments.targets))}"
        f"{' --real' if arguments.real else ''}`"
    )
    everything = [*tutorials, *(run for found in runs.values() for run in found)]
    dirty = sum(not run.clean for run in everything)
    warning = f"Others used the cores during {dirty} of {len(everything)} runs." if dirty else ""
    first = [run.seconds for run in next(iter(runs.values()))]
    real = real_tutorial(data) if arguments.real else None
    header = ["target", "epochs", "seconds", "of the first row's", "test accuracy (%)", "seeds above", "reached"]
    tables = [
        "Mean ± standard error over the seeds.",
        "## examples/fashion_fast.json",
        table(header, fast_rows(runs, first)),
        f"## The tutorials' recipe, to {100 * TUTORIAL_TARGET:.0f} %",
        table(["", "epochs", "seconds", "of the first row's above"], tutorial_rows(tutorials, real, first)),
    ]
    write("time_to_accuracy", "Time to accuracy", tables, [command, warning])


if __name__ == "__main__":
    main()
