"""What the techniques do on real data, several seeds each: mean ± standard error, beside what the papers say.

python benchmarks/learning.py [--study NAME] [--only-tables] [--seeds 5] [--processes N] [--data-dir epochd-data]

Every run is one line of results/learning.jsonl, and is not repeated; so an interrupted call goes on where it stopped.
Runs go side by side, one thread each: small networks gain less from a second thread than from a second run. The tables
are written to results/learning.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from studies import STUDIES, Study
from study_specs import checked

from cnn.data import Data
from cnn.datasets import FashionMNIST
from cnn.determinism import set_threads
from cnn.errors import Diverged
from cnn.evaluation import evaluate
from cnn.events import Metrics, Result
from cnn.models import build_network
from cnn.native import library
from cnn.spec import TrainingSpec
from cnn.splits import train_val_split
from cnn.training import train

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "learning.jsonl"
TABLES = RESULTS / "learning.md"


def measure(spec: TrainingSpec, data: Data) -> dict[str, Any]:
    """Train, and judge the delivered weights on the training split too, as it is: no augmentation, no dropout.

    Raises:
        Diverged: the loss or a gradient is no number.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        events = list(train(spec, data, artifacts=Path(folder)))
        weights = load_file(Path(folder) / "model.safetensors")
    kept, _ = train_val_split(data.train_labels, spec.split.val_fraction, spec.split.num_train, spec.split.seed)
    images, labels = torch.from_numpy(data.train_images[kept]), torch.from_numpy(data.train_labels[kept])
    score = evaluate(build_network(spec), weights, images, labels)
    result = next(event for event in events if isinstance(event, Result))
    epochs = [event for event in events if isinstance(event, Metrics) and "val_accuracy" in event.values]
    return {
        "test_accuracy": result.test_accuracy,
        "train_accuracy": score.accuracy,
        "train_loss": score.loss,
        "gap": score.accuracy - result.test_accuracy,
        "epoch": result.epoch,
        "epochs": len(epochs),
        "best_val_accuracy": max(event.values["val_accuracy"] for event in epochs),
        "threads": torch.get_num_threads(),
        "seconds": time.perf_counter() - start,
    }


def key_of(study: Study, variant: str, seed: int) -> str:
    """Identity of a run: what the study says of it, so that a changed variant is another one."""
    part = json.dumps(study.variants[variant], sort_keys=True)
    return f"{study.name}/{variant}/{seed}/{hashlib.sha256(part.encode()).hexdigest()[:16]}"


def recorded() -> dict[str, dict[str, Any]]:
    lines = RUNS.read_text().splitlines() if RUNS.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def one_run(study: str, variant: str, seed: int, data_dir: Path) -> dict[str, Any]:
    """One line of the results, in a process of the pool."""
    set_threads(1)
    library.use(library.find())
    (part,) = [each.variants[variant] for each in STUDIES if each.name == study]
    try:
        return measure(checked(part, seed), FashionMNIST().load(data_dir))
    except Diverged as error:
        return {"diverged": str(error)}


def run(studies: list[Study], seeds: int, processes: int, data_dir: Path) -> None:
    FashionMNIST().load(data_dir)  # Fetched once, before the processes ask for it.
    done = recorded()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = {
            pool.submit(one_run, study.name, variant, seed, data_dir): (study, variant, seed)
            for study in studies
            for seed in range(seeds)
            for variant in study.variants
            if key_of(study, variant, seed) not in done
        }
        for finished in as_completed(pending):
            study, variant, seed = pending[finished]
            row = {"key": key_of(study, variant, seed), "study": study.name, "variant": variant, "seed": seed}
            row |= finished.result()
            with RUNS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{study.name}, {variant}, seed {seed}: {row.get(study.measure, 'diverged')}", flush=True)


def table(study: Study, seeds: int) -> str:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    done = recorded()
    for variant in study.variants:
        for seed in range(seeds):
            key = key_of(study, variant, seed)
            if key in done:
                rows[variant].append(done[key])
    if not rows:
        return f"## {study.name}\n\nNot run yet.\n"
    columns = [study.measure, *(name for name in study.beside if name != study.measure)]
    lines = [f"## {study.name}", "", f"{study.question}. Expected: {study.expected}.", ""]
    lines += [f"Found: {study.found}.", ""]
    lines += [f"| | {' | '.join(columns)} | seeds | s per run |", "|---" * (len(columns) + 3) + "|"]
    for variant, attempted in rows.items():
        runs = [row for row in attempted if "diverged" not in row]
        if not runs:
            lines.append(f"| {variant} | diverged {'| ' * len(columns)}| {len(attempted)} | |")
            continue
        cells = [mean_and_error([row[column] for row in runs]) for column in columns]
        seconds = statistics.mean(row["seconds"] for row in runs)
        number = (
            str(len(runs)) if len(runs) == len(attempted) else f"{len(runs)}, {len(attempted) - len(runs)} diverged"
        )
        lines.append(f"| {variant} | {' | '.join(cells)} | {number} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def mean_and_error(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What the techniques do on real data.")
    parser.add_argument("--study", choices=[study.name for study in STUDIES], help="only this one")
    parser.add_argument("--only-tables", action="store_true", help="write the tables of what has been run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    studies = [study for study in STUDIES if arguments.study in (None, study.name)]
    if not arguments.only_tables:
        run(studies, arguments.seeds, arguments.processes, arguments.data_dir)
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"
    head = (
        "# What the techniques do on Fashion-MNIST\n\n"
        f"`python benchmarks/learning.py` on {machine}, torch {torch.__version__}. Mean ± standard error over seeds, "
        "each with a split of its own.\n"
    )
    TABLES.write_text("\n".join([head, *(table(study, arguments.seeds) for study in STUDIES)]))


if __name__ == "__main__":
    main()
