"""Small jobs that together use every technique there is, read from the unions: a new one is covered by existing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from cnn.augmentation import Augmentation
from cnn.base import Layer as AnyLayer
from cnn.early_stopping import Monitor
from cnn.layers import Layer
from cnn.normalization import Normalization
from cnn.optimizers import Optimizer
from cnn.regularizers import Regularizer
from cnn.schedules import Schedule
from cnn.spec import TrainingSpec
from cnn.transform import Stage, Transform

SETTINGS: dict[str, dict[str, Any]] = {
    "gan": {"epochs": 2, "width": 8},
    "feature_space": {"layer": "fc1"},
    "group_norm": {"num_groups": 2},
    "drop_block": {"block_size": 3},
    "multi_step": {"milestones": [2, 4]},
}
"""What a member needs in a network this small, beside its defaults."""

COLOURS = "colours.npz"


def members(union: Any) -> tuple[type[Any], ...]:
    """The classes of a union of specs."""
    found: tuple[type[Any], ...] = get_args(get_args(union.__value__)[0])
    return found


def layers_of(module: str) -> tuple[type[AnyLayer], ...]:
    """The layers that a module of `cnn` defines."""
    return tuple(member for member in members(Layer) if member.__module__ == module)


def tag(member: type[Any]) -> str:
    """The `type` of a member of a union."""
    name: str = member.model_fields["type"].default
    return name


def write_colours(data_dir: Path) -> dict[str, Any]:
    """A dataset of 150 pictures in colour, for what grey digits are refused for; its spec."""
    generator = np.random.default_rng(0)
    path = data_dir / COLOURS
    np.savez(path, images=generator.integers(0, 256, (150, 8, 8, 3), np.uint8), labels=np.arange(150) % 10)
    return {"type": "npz", "path": str(path), "test_fraction": 0.2}


def make_mix(data_dir: Path, *, epochs: int) -> dict[str, TrainingSpec]:
    """Specs by name, one for each optimizer and one in colour; `data_dir` gets the pictures in colour."""
    optimizers = members(Optimizer)
    grey = {"type": "digits"}
    colours = write_colours(data_dir)
    shared = [member for member in members(Augmentation) if _accepted(member, grey)]
    coloured = [member for member in members(Augmentation) if member not in shared]
    mix = {
        f"{index:02}-{tag(optimizer)}": _spec(index, epochs, grey, optimizer, shared[index :: len(optimizers)])
        for index, optimizer in enumerate(optimizers)
    }
    mix["colours"] = _spec(len(optimizers), epochs, colours, optimizers[0], coloured)
    return mix


def _accepted(member: type[Transform], dataset: dict[str, Any]) -> bool:
    try:
        _spec(0, 5, dataset, members(Optimizer)[0], [member])
    except ValidationError:
        return False
    return True


def _spec(
    index: int,
    epochs: int,
    dataset: dict[str, Any],
    optimizer: type[Any],
    augmentation: list[type[Transform]],
) -> TrainingSpec:
    """The spec number `index`, which takes of every family the member whose turn it is."""

    def turn(choices: Any) -> Any:
        return choices[index % len(choices)]

    content = {
        "dataset": dataset,
        "split": {"num_train": 96},
        "normalization": _part(turn(members(Normalization))),
        "augmentation": [_part(member) for member in sorted(augmentation, key=lambda member: Stage(member.stage))],
        "model": {"type": "layers", "layers": _layers(turn(layers_of("cnn.normalization_layers")), index)},
        "regularizers": [_part(turn(members(Regularizer)))],
        "optimizer": _part(optimizer),
        "schedule": _part(turn(members(Schedule))),
        "training": {"epochs": epochs, "batch_size": 32, "seed": index, "ema": {"decay": 0.9} if index % 3 else None},
        "early_stopping": {"monitor": turn(get_args(Monitor)), "patience": 1 + epochs // 4},
    }
    return TrainingSpec.model_validate_json(json.dumps(content))


def _layers(normalization: type[AnyLayer], index: int) -> list[dict[str, Any]]:
    dropouts = layers_of("cnn.dropout")
    conv = {"type": "conv2d", "out_channels": 8, "kernel_size": 3, "padding": "same"}
    return [
        conv,
        _part(normalization),
        {"type": "relu"},
        # The whole family acts on what a residual block adds, and one of its members on the features.
        {"type": "residual", "layers": [conv, _part(dropouts[index % len(dropouts)])]},
        {"type": "max_pool2d", "kernel_size": 2},
        {"type": "flatten"},
        {"type": "linear", "name": "fc1", "out_features": 32},
        {"type": "relu"},
        {"type": "dropout", "scaling": "test" if index % 2 else "train"},
        {"type": "linear", "out_features": 10},
    ]


def _part(member: type[Any]) -> dict[str, Any]:
    return {"type": tag(member), **SETTINGS.get(tag(member), {})}
