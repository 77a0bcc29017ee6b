"""Images per second of one epoch of examples/fashion.json, beside the bare forward and backward of its network.

python benchmarks/throughput.py [--threads N] [--data-dir epochd-data]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from cnn.datasets import FashionMNIST
from cnn.events import Metrics
from cnn.models import build_network
from cnn.spec import TrainingSpec
from cnn.training import train

SPEC = Path(__file__).parent.parent / "examples" / "fashion.json"
ROUNDS = 3
STEPS = 100


def bare_images_per_second(spec: TrainingSpec, batch: torch.Tensor, labels: torch.Tensor) -> float:
    """Forward and backward of one fixed batch, again and again: no optimizer, no augmentation, no metrics."""
    network = build_network(spec).to(memory_format=torch.channels_last).train()
    for _ in range(5):
        F.cross_entropy(network(batch), labels).backward()
    start = time.perf_counter()
    for _ in range(STEPS):
        network.zero_grad()
        F.cross_entropy(network(batch), labels).backward()
    return STEPS * len(labels) / (time.perf_counter() - start)


def epoch_images_per_second(spec: TrainingSpec, data_dir: Path) -> float:
    epochs = [event for event in train(spec, spec.dataset.load(data_dir)) if isinstance(event, Metrics)]
    return epochs[-1].timings["images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    spec = TrainingSpec.model_validate_json(SPEC.read_bytes())
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": 1})})
    data = FashionMNIST().load(arguments.data_dir)
    batch = torch.from_numpy(data.train_images[: spec.training.batch_size])
    labels = torch.from_numpy(data.train_labels[: spec.training.batch_size])

    print(f"torch {torch.__version__}, {arguments.threads} threads, batch {len(labels)}; {ROUNDS} rounds")
    for _ in range(ROUNDS):
        bare = bare_images_per_second(spec, batch, labels)
        whole = epoch_images_per_second(spec, arguments.data_dir)
        print(f"bare forward and backward {bare:,.0f} images/s; epoch {whole:,.0f} images/s; ratio {whole / bare:.3f}")


if __name__ == "__main__":
    main()
