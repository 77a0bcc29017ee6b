"""What checkpoints cost a run: seconds of saving over the seconds of the run, at the interval that every run has.

python benchmarks/checkpoints.py [--threads N] [--data-dir epochd-data]       some four minutes

A small network (that of throughput.py) and torchvision's ResNet-18, both with Adam, whose two averages make a
checkpoint three times as large as the weights, and four times where the best ones are older. Each trains whole epochs
of Fashion-MNIST as `train()` does; training waits for a checkpoint until it is on the disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from alternation import Gate, table, write
from throughput import CROP_AND_FLIP, TUTORIAL

from cnn.data import Data
from cnn.datasets import FashionMNIST
from cnn.determinism import set_threads
from cnn.events import Checkpoint
from cnn.native import library
from cnn.run import Run
from cnn.spec import TrainingSpec
from cnn.training import _steps, never  # the loop itself, with a hand on the run that says what a save took

EPOCHS = {"small CNN": 3, "ResNet-18": 4}
MODELS = {"small CNN": TUTORIAL["model"], "ResNet-18": {"type": "resnet18"}}


@dataclass(frozen=True)
class Cost:
    """Of the checkpoints of one run."""

    num_parameters: int
    num_bytes: int
    saves: list[float]
    """Seconds of each."""
    seconds: float
    """Of all training steps, evaluations and saves."""
    clean: bool

    @property
    def row(self) -> list[str]:
        milliseconds = sorted(1000 * save for save in self.saves)
        return [
            f"{self.num_parameters:,}",
            f"{self.num_bytes / 1e6:.1f}",
            f"{statistics.median(milliseconds):.1f}",
            f"{milliseconds[0]:.1f} to {milliseconds[-1]:.1f}",
            str(len(milliseconds)),
            f"{self.seconds:.1f}",
            f"{100 * sum(self.saves) / self.seconds:.3f}",
        ]


def cost(spec: TrainingSpec, data: Data, data_dir: Path) -> Cost:
    """With its checkpoints in a folder beside the datasets, where those of jobs are."""
    run = Run(spec, data, torch.device("cpu"), None)
    gate, start = Gate(), time.perf_counter()
    saves: list[float] = []
    num_bytes = 0
    with tempfile.TemporaryDirectory(dir=data_dir) as folder:
        for event in _steps(run, run, Path(folder), never):
            if isinstance(event, Checkpoint):
                saves.append(run.save_seconds)
                num_bytes = sum(path.stat().st_size for path in event.path.iterdir())
    seconds = time.perf_counter() - start
    return Cost(spec.plan().num_parameters, num_bytes, saves, seconds, gate.clean)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--num-train", type=int, help="images of an epoch, for a trial; the default is all but 10 %%")
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    library.use(library.find())
    data = FashionMNIST().load(arguments.data_dir)
    lines, warnings = [], []
    for name, model in MODELS.items():
        training = {**TUTORIAL["training"], "epochs": EPOCHS[name]}
        parts = {"model": model, "augmentation": CROP_AND_FLIP, "training": training}
        parts["split"] = {"num_train": arguments.num_train}
        found = cost(TrainingSpec.model_validate({**TUTORIAL, **parts}), data, arguments.data_dir)
        lines.append([name, *found.row])
        if not found.clean:
            warnings.append(f"Others used the cores while the {name} was trained.")
    header = ["", "parameters", "MB", "ms (median)", "range", "checkpoints", "seconds of the run", "% of the run"]
    command = f"`python benchmarks/checkpoints.py --threads {arguments.threads}`"
    if arguments.num_train:
        command += f", with `--num-train {arguments.num_train}`"
    write("checkpoints", "Checkpoints", [table(header, lines)], [command, *warnings])


if __name__ == "__main__":
    main()
