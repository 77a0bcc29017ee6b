from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cnn.spec import TrainingSpec

DESIGN: dict[str, Any] = {
    "dataset": {"type": "fashion_mnist"},
    "split": {"val_fraction": 0.1, "seed": 0},
    "normalization": {"type": "standardize"},
    "augmentation": [
        {"type": "random_crop", "padding": 2},
        {"type": "horizontal_flip", "p": 0.5},
        {"type": "translate", "max_shift": 0.1},
    ],
    "model": {
        "type": "layers",
        "layers": [
            {"type": "conv2d", "name": "conv1", "out_channels": 32, "kernel_size": 3, "padding": "same"},
            {"type": "batch_norm"},
            {"type": "relu"},
            {"type": "max_pool2d", "kernel_size": 2},
            {"type": "flatten"},
            {"type": "linear", "name": "fc1", "out_features": 128},
            {"type": "relu"},
            {"type": "dropout", "keep_prob": 0.5, "scaling": "train"},
            {"type": "linear", "out_features": 10},
        ],
    },
    "regularizers": [
        {"type": "l2", "weight": 5e-4},
        {"type": "l1", "weight": 1e-6, "layers": ["conv*"]},
        {"type": "max_norm", "max_value": 3.0, "layers": ["fc*"]},
    ],
    "loss": {"type": "cross_entropy", "label_smoothing": 0.0},
    "optimizer": {"type": "nesterov", "lr": 0.05, "momentum": 0.9},
    "schedule": {"type": "one_cycle", "pct_start": 0.2},
    "training": {
        "epochs": 5,
        "batch_size": 128,
        "seed": 0,
        "device": "auto",
        "precision": "float32",
        "accumulate": 1,
        "drop_last": True,
        "max_grad_norm": None,
        "ema": None,
        "init": "default",
        "init_from": None,
    },
    "early_stopping": {"monitor": "val_loss", "patience": 3, "min_delta": 0.0, "restore_best_weights": True},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """DESIGN with `value` at the place that a JSON Pointer names."""
    spec: Any = json.loads(json.dumps(DESIGN))
    *parents, last = path.strip("/").split("/")
    place = spec
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value
    return spec  # type: ignore[no-any-return]


def the_error(spec: dict[str, Any]) -> tuple[str, str]:
    """The JSON Pointer and the message of the only error."""
    with pytest.raises(ValidationError) as caught:
        TrainingSpec.model_validate(spec)
    (error,) = caught.value.errors()
    return error.get("ctx", {}).get("pointer", ""), error["msg"]


def test_the_written_spec_is_its_own_resolved_form_but_for_names_and_defaults() -> None:
    spec = TrainingSpec.model_validate(DESIGN)
    resolved = spec.model_dump(mode="json")
    assert resolved["training"] == {
        **DESIGN["training"],
        "devices": 1,
        "deterministic": True,
        "frozen": [],
        "test_time_augmentation": None,
    }
    assert resolved["model"]["layers"][0]["stride"] == 1
    names = [layer["name"] for layer in resolved["model"]["layers"]]
    assert names == ["conv1", "batch_norm1", "relu1", "max_pool2d1", "flatten1", "fc1", "relu2", "dropout1", "linear2"]
    assert TrainingSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_short_spec_has_every_default_filled_in() -> None:
    spec = TrainingSpec.model_validate(
        {"dataset": {"type": "digits"}, "model": DESIGN["model"], "optimizer": {"type": "sgd"}}
    )
    resolved = spec.model_dump(mode="json")
    assert resolved["normalization"] == {"type": "standardize"}
    assert resolved["loss"] == {"type": "cross_entropy", "label_smoothing": 0.0, "class_weights": None}
    assert resolved["schedule"] == {"type": "constant", "warmup_epochs": 0.0}
    assert (resolved["augmentation"], resolved["regularizers"], resolved["early_stopping"]) == ([], [], None)


@pytest.mark.parametrize(
    ("path", "value", "pointer", "message"),
    [
        (
            "/model/layers/3/kernel_size",
            29,
            "/model/layers/3",
            "layer max_pool2d1 (max_pool2d) does not fit (32, 28, 28)",
        ),
        ("/model/layers/4", {"type": "relu"}, "/model/layers/5", "put a flatten layer before it"),
        (
            "/model/layers/8/out_features",
            11,
            "/model/layers/8",
            "each of the 10 classes of fashion_mnist, it gives (11,)",
        ),
        ("/model/layers/5/name", "conv1", "/5/name", "layer name 'conv1' is taken by another layer"),
        ("/model/layers/5/name", "normalization", "/5/name", "taken by the input normalization"),
        (
            "/regularizers/1/layers",
            ["conv*", "fc9"],
            "/regularizers/1/layers/1",
            "no layer with a weight is called 'fc9'",
        ),
        ("/regularizers/1/layers", ["relu*"], "/regularizers/1/layers/0", "there are: conv1, fc1, linear2"),
        ("/training/batch_size", 60000, "/training/batch_size", "needs 60000 images, but the training split has 54000"),
        ("/split/val_fraction", 0.0, "/early_stopping/monitor", "val_loss needs a validation split"),
        ("/split/num_train", 54001, "/split/num_train", "fashion_mnist has 54000 images for training"),
        ("/split/num_train", 100, "/training/batch_size", "needs 128 images, but the training split has 100"),
        ("/loss/class_weights", [1.0] * 9, "/loss/class_weights", "each of the 10 classes of fashion_mnist, got 9"),
        ("/augmentation/0/padding", 29, "/augmentation/0", "random_crop"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_place(path: str, value: Any, pointer: str, message: str) -> None:
    found_pointer, found_message = the_error(changed(path, value))
    assert (found_pointer, message in found_message) == (pointer, True), found_message


def test_a_model_beyond_the_limit_is_refused_before_it_is_built() -> None:
    spec = changed("/model/layers/5/out_features", 65536)
    spec["model"]["layers"][0]["out_channels"] = 4096
    pointer, message = the_error(spec)
    assert pointer == "/model"
    # 14 · 14 · 4096 features to 65536, and so on
    assert "parameters, the limit is 1,000,000,000" in message


def test_importing_the_spec_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, cnn.spec; print([name for name in ('torch', 'numpy', 'sklearn') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
