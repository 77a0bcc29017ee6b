"""What each regularizer and each optimizer costs in a step.

python benchmarks/steps.py [--threads N] [--rounds 10] [--data-dir epochd-data]

Each is timed alone, on the weights of the network of throughput.py, and divided by the time of a whole step of the same
round: differences of whole steps would drown in noise.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from alternation import Rates, alternate, table, write
from throughput import CROP_AND_FLIP, KERNELS_MISSING, NUM_IMAGES, TUTORIAL, engine, spec_with

from cnn.data import Data
from cnn.datasets import FashionMNIST
from cnn.determinism import set_threads
from cnn.learner import Learner
from cnn.native import library
from cnn.optimizers import Optimizer
from cnn.regularizers import Regularizer
from cnn.spec import TrainingSpec

STEP = "a whole step"
KERNELS_USED = (
    "With the kernels that `python -m cnn.native` compiles: for all but `l2`, and for `muon` those of its partner."
)


def names_of(union: Any) -> list[str]:
    return [member.model_fields["type"].default for member in get_args(get_args(union.__value__)[0])]


def learner_of(data: Data, **parts: Any) -> Learner:
    """With a gradient of noise for each parameter."""
    spec = TrainingSpec.model_validate({**TUTORIAL, **parts})
    learner = Learner(spec, data.train_images[:NUM_IMAGES], data.train_labels[:NUM_IMAGES], torch.device("cpu"))
    for parameter in learner.network.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    return learner


def regularizer(name: str, data: Data) -> Callable[[], int]:
    weights = [weight for weight in learner_of(data).network.parameters() if weight.ndim > 1]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    spec = TrainingSpec.model_validate({**TUTORIAL, "regularizers": [{"type": name}]})

    @torch.no_grad()
    def work() -> int:
        spec.regularizers[0].add_gradient(weights, gradients)
        spec.regularizers[0].project(weights)
        return 1

    return work


def optimizer(name: str, data: Data) -> Callable[[], int]:
    learner = learner_of(data)
    weights = list(learner.network.parameters())
    spec = TrainingSpec.model_validate({**TUTORIAL, "optimizer": {"type": name}}).optimizer
    built = spec.build_for(
        [weight for weight in weights if weight.ndim > 1], [weight for weight in weights if weight.ndim == 1]
    )

    def work() -> int:
        with spec.gradient_point(built):
            pass
        built.step()
        return 1

    return work


def shares(rates: Rates) -> list[list[str]]:
    """Milliseconds of each variant, and their share of a step in percent."""
    lines = []
    for name in rates.per_second:
        times, low, high = rates.ratio(STEP, name)
        interval = f"{100 * low:.2f} to {100 * high:.2f}"
        lines.append([name, f"{1000 / rates.median(name):.3f}", f"{100 * times:.2f}", interval, rates.share(name)])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    data = FashionMNIST().load(arguments.data_dir)
    kernels = library.find()
    library.use(kernels)
    step = engine(spec_with(CROP_AND_FLIP), data, kernels)

    def whole_step() -> int:
        step()
        return 1

    variants: dict[str, Callable[[], int]] = {STEP: whole_step}
    variants |= {name: regularizer(name, data) for name in names_of(Regularizer)}
    variants |= {name: optimizer(name, data) for name in names_of(Optimizer)}
    rates = alternate(variants, rounds=arguments.rounds, seconds=arguments.seconds)
    header = ["", "ms", "% of a step", "95 % interval", "clean"]
    note = KERNELS_USED if kernels else KERNELS_MISSING
    write("steps", "What a step is made of", [table(header, shares(rates))], [note, rates.warning])


if __name__ == "__main__":
    main()
