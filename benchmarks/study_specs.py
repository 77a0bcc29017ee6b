"""The specs that the studies of `learning.py` compare, each study a mapping from the row's name.

All are on Fashion-MNIST with small training splits, so that the whole fits into an evening on two cores.
"""

from __future__ import annotations

from typing import Any

from cnn.spec import TrainingSpec

Part = dict[str, Any]


MLP: Part = {
    "type": "layers",
    "layers": [
        {"type": "flatten"},
        {"type": "linear", "name": "fc1", "out_features": 1024},
        {"type": "relu"},
        {"type": "linear", "name": "fc2", "out_features": 1024},
        {"type": "relu"},
        {"type": "linear", "name": "fc3", "out_features": 2048},
        {"type": "relu"},
        {"type": "linear", "name": "output", "out_features": 10},
    ],
}


def with_dropout(model: Part, keep_prob: float, conv_keep_prob: float = 1.0) -> Part:
    """The model with dropout behind the activation of every hidden dense layer, and of every convolution."""
    layers: list[Part] = []
    for previous, layer in zip([{"type": ""}, *model["layers"]], model["layers"], strict=False):
        layers.append(layer)
        if layer["type"] == "relu":
            kept = keep_prob if previous["type"] == "linear" else conv_keep_prob
            layers += [{"type": "dropout", "keep_prob": kept}] if kept < 1 else []
    return {**model, "layers": layers}


CNN: Part = {
    "type": "layers",
    "layers": [
        {"type": "conv2d", "name": "conv1", "out_channels": 16, "kernel_size": 3, "padding": "same"},
        {"type": "max_pool2d", "kernel_size": 2},
        {"type": "relu"},
        {"type": "conv2d", "name": "conv2", "out_channels": 32, "kernel_size": 3, "padding": "same"},
        {"type": "max_pool2d", "kernel_size": 2},
        {"type": "relu"},
        {"type": "flatten"},
        {"type": "linear", "name": "fc1", "out_features": 128},
        {"type": "relu"},
        {"type": "linear", "name": "output", "out_features": 10},
    ],
}
MOMENTUM: Part = {"type": "momentum", "lr": 0.02, "momentum": 0.9}


def spec(
    model: Part,
    *,
    num_train: int,
    epochs: int,
    batch_size: int = 50,
    optimizer: Part = MOMENTUM,
    val_fraction: float = 0.05,
    **parts: Any,
) -> Part:
    """A spec for a small training split; the epochs count passes over it."""
    return {
        "dataset": {"type": "fashion_mnist"},
        "split": {"val_fraction": val_fraction, "num_train": num_train},
        "model": model,
        "optimizer": optimizer,
        "training": {"epochs": epochs, "batch_size": batch_size, "device": "cpu"},
        **parts,
    }


L2: Part = {"type": "l2", "weight": 1e-3}
L1: Part = {"type": "l1", "weight": 1e-5}
MAX_NORM: Part = {"type": "max_norm", "max_value": 2.0}
LAST = {"early_stopping": {"patience": 1000, "restore_best_weights": False}}
"""Deliver the last weights: what over-fitting does must show."""


def srivastava_row(*regularizers: Part, model: Part = MLP) -> Part:
    """5,000 images, 1,500 updates: enough for the network to fit what it sees."""
    optimizer = {"type": "momentum", "lr": 0.05, "momentum": 0.9}
    return spec(
        model,
        num_train=5000,
        epochs=30,
        batch_size=100,
        optimizer=optimizer,
        schedule={"type": "cosine"},
        regularizers=list(regularizers),
        **LAST,
    )


MLP_DROPOUT = with_dropout(MLP, 0.5)
MLP_DROPOUT["layers"].insert(1, {"type": "dropout", "keep_prob": 0.8})  # Of the pixels, behind `flatten`.
srivastava = {
    "L2": srivastava_row(L2),
    "L1 + L2": srivastava_row(L1, L2),
    "max-norm": srivastava_row(MAX_NORM),
    "dropout + L2": srivastava_row({"type": "l2", "weight": 1e-4}, model=MLP_DROPOUT),
    "dropout + max-norm": srivastava_row(MAX_NORM, model=MLP_DROPOUT),
}

AUGMENTATION: list[Part] = [{"type": "random_crop", "padding": 2}, {"type": "horizontal_flip"}]
overfitting = {
    "none": spec(CNN, num_train=1000, epochs=60, **LAST),
    "L2": spec(CNN, num_train=1000, epochs=60, regularizers=[{"type": "l2", "weight": 1e-2}], **LAST),
    "dropout + max-norm": spec(
        with_dropout(CNN, 0.5),
        num_train=1000,
        epochs=60,
        regularizers=[{"type": "max_norm", "max_value": 2.0, "layers": ["fc*"]}],
        **LAST,
    ),
    "dropout + max-norm everywhere": spec(
        with_dropout(CNN, 0.5, conv_keep_prob=0.75), num_train=1000, epochs=60, regularizers=[MAX_NORM], **LAST
    ),
    "augmentation": spec(CNN, num_train=1000, epochs=60, augmentation=AUGMENTATION, **LAST),
    "early stopping": spec(CNN, num_train=1000, epochs=60, early_stopping={"patience": 5}),
}

stopping = {
    "last of 60 epochs": spec(CNN, num_train=1000, epochs=60, **LAST),
    "best of 60 epochs": spec(CNN, num_train=1000, epochs=60, early_stopping={"patience": 1000}),
    **{
        f"patience {patience}": spec(CNN, num_train=1000, epochs=60, early_stopping={"patience": patience})
        for patience in (1, 3, 5, 10)
    },
}

look_ahead = {
    f"{name}, γ = {momentum}": spec(
        CNN,
        num_train=1000,
        epochs=15,
        optimizer={"type": name, "lr": 0.2 * (1 - momentum), "momentum": momentum},
        **LAST,
    )
    for momentum in (0.9, 0.95, 0.99, 0.995, 0.999)
    for name in ("momentum", "nesterov")
}

GRID = {
    "sgd": (0.03, 0.1, 0.3, 0.6),
    "momentum": (0.003, 0.01, 0.03, 0.1),
    "nesterov": (0.003, 0.01, 0.03, 0.1),
    "adagrad": (0.003, 0.01, 0.03, 0.1),
    "rmsprop": (0.0003, 0.001, 0.003, 0.01),
    "adam": (0.0003, 0.001, 0.003, 0.01),
}
optimizers = {
    f"{name}, lr {lr:g}": spec(CNN, num_train=2000, epochs=6, optimizer={"type": name, "lr": lr}, **LAST)
    for name, rates in GRID.items()
    for lr in rates
}

INPUTS: dict[str, tuple[Part | None, tuple[float, ...]]] = {
    "standardized": ({"type": "standardize"}, (0.005, 0.02, 0.08, 0.16, 0.32)),
    "0 to 1": ({"type": "min_max"}, (0.02, 0.08, 0.16, 0.3)),
    "0 to 255": (None, (1e-5, 1e-4, 1e-3, 2e-3, 4e-3)),
}
inputs = {
    f"{name}, lr {lr:g}": spec(
        CNN, num_train=2000, epochs=4, normalization=normalization, optimizer={**MOMENTUM, "lr": lr}, **LAST
    )
    for name, (normalization, rates) in INPUTS.items()
    for lr in rates
}

feature_space = {
    "none": spec(CNN, num_train=300, epochs=60, **LAST),
    **{
        f"{mode}, λ = {weight}": spec(
            CNN,
            num_train=300,
            epochs=60,
            augmentation=[{"type": "feature_space", "layer": "fc1", "mode": mode, "weight": weight}],
            **LAST,
        )
        for mode in ("interpolate", "extrapolate")
        for weight in (0.25, 0.5)
    },
}

generated = {
    f"{per_class} images per class, {name}": spec(
        CNN, num_train=10 * per_class, epochs=6000 // per_class // 5, augmentation=augmentation, **LAST
    )
    for per_class in (20, 50)
    for name, augmentation in {
        "none": [],
        "gan": [{"type": "gan", "share": 0.25, "epochs": 6000 // per_class}],
        "crop and flip": AUGMENTATION,
    }.items()
}


def checked(part: Part, seed: int) -> TrainingSpec:
    """The spec of one run."""
    return TrainingSpec.model_validate(
        {**part, "split": {**part["split"], "seed": seed}, "training": {**part["training"], "seed": seed}}
    )
