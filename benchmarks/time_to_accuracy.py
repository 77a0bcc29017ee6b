"""Seconds of training to an accuracy on Fashion-MNIST: examples/fashion_fast.json, and the recipe of the tutorials.

python benchmarks/time_to_accuracy.py [--threads N] [--seeds 5] [--epochs 1 2 4 8] [--data-dir epochd-data]

The fast recipe's learning rate rises and falls over the whole run, so that each length is a run of its own. Both run in
this engine: a plain loop needs the tutorial's epochs too, and its seconds follow from the ratio in throughput.md. The
seconds are of training, without loading and evaluating. There is no gate against others: leave the machine alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import torch
from alternation import table, write
from throughput import CROP_AND_FLIP, spec_with

from cnn.data import Data
from cnn.datasets import FashionMNIST
from cnn.events import Metrics, Result
from cnn.spec import TrainingSpec
from cnn.training import train

FAST = Path(__file__).parent.parent / "examples" / "fashion_fast.json"
TUTORIAL_EPOCHS = 6


def fast_spec(epochs: int, seed: int) -> TrainingSpec:
    spec = TrainingSpec.model_validate_json(FAST.read_bytes())
    return spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": epochs, "seed": seed})})


def tutorial_spec(seed: int) -> TrainingSpec:
    spec = spec_with(CROP_AND_FLIP)
    training = spec.training.model_copy(update={"epochs": TUTORIAL_EPOCHS, "seed": seed})
    return spec.model_copy(update={"training": training})


def seconds_and_accuracy(spec: TrainingSpec, data: Data) -> tuple[float, float]:
    events = list(train(spec, data))
    seconds = sum(event.timings["seconds"] for event in events if isinstance(event, Metrics))
    return seconds, next(event.test_accuracy for event in events if isinstance(event, Result))


def summary(name: str, runs: list[tuple[float, float]]) -> list[str]:
    """Mean seconds; mean accuracy and its standard error, in percent."""
    seconds = statistics.mean(run[0] for run in runs)
    accuracies = [100 * run[1] for run in runs]
    error = statistics.stdev(accuracies) / len(runs) ** 0.5 if len(runs) > 1 else float("nan")
    return [name, str(len(runs)), f"{seconds:.1f}", f"{statistics.mean(accuracies):.2f} ± {error:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = FashionMNIST().load(arguments.data_dir)
    lines = [
        summary(
            f"fashion_fast, {epochs} epochs",
            [seconds_and_accuracy(fast_spec(epochs, seed), data) for seed in range(arguments.seeds)],
        )
        for epochs in arguments.epochs
    ]
    tutorial = [seconds_and_accuracy(tutorial_spec(seed), data) for seed in range(arguments.seeds)]
    lines.append(summary(f"tutorial, {TUTORIAL_EPOCHS} epochs, Adam", tutorial))
    header = ["", "seeds", "seconds of training", "test accuracy (%)"]
    write("time_to_accuracy", "Time to accuracy", [table(header, lines)])


if __name__ == "__main__":
    main()
