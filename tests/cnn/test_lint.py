"""The linter: each rule on a spec that breaks it and on one that just does not, and repairs that really repair."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest

from cnn.findings import Finding
from cnn.lint import RULES, lint
from cnn.spec import TrainingSpec

CONV: dict[str, Any] = {"type": "conv2d", "out_channels": 4, "kernel_size": 3, "bias": False}
NORM, RELU = {"type": "batch_norm"}, {"type": "relu"}
DROPOUT = {"type": "dropout", "keep_prob": 0.5}
HEAD: list[Any] = [{"type": "flatten"}, {"type": "linear", "out_features": 10}]
CLEAN: dict[str, Any] = {
    "dataset": {"type": "digits"},
    "model": {"type": "layers", "layers": [CONV, NORM, RELU, DROPOUT, *HEAD]},
    "optimizer": {"type": "momentum"},
}


def spec(*layers: Any, **parts: Any) -> dict[str, Any]:
    model = {"model": {"type": "layers", "layers": [*layers]}} if layers else {}
    return copy.deepcopy({**CLEAN, **model, **parts})


def findings(sent: dict[str, Any]) -> tuple[Finding, ...]:
    return lint(TrainingSpec.model_validate_json(json.dumps(sent)))


def applied(sent: Any, fix: Any) -> Any:
    """The document after a JSON Patch of operations add, remove and move (RFC 6902)."""
    document = copy.deepcopy(sent)
    for operation in fix:
        value = operation.get("value")
        if operation["op"] in ("remove", "move"):
            *path, last = operation["from" if operation["op"] == "move" else "path"].split("/")[1:]
            value = _parent(document, path).pop(int(last))
        if operation["op"] in ("add", "move"):
            *path, last = operation["path"].split("/")[1:]
            parent = _parent(document, path)
            if isinstance(parent, list):
                parent.insert(int(last), value)
            else:
                parent[last] = value
    return document


def _parent(document: Any, path: list[str]) -> Any:
    for key in path:
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


FLIP, VERTICAL = {"type": "horizontal_flip"}, {"type": "vertical_flip"}
STOPPING = {"type": "early_stopping"}
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (spec(DROPOUT, CONV, NORM, RELU, *HEAD), "dropout_before_batch_norm", "/model/layers/0"),
    (
        spec({"type": "residual", "layers": [DROPOUT, {**CONV, "out_channels": 1, "padding": 1}]}, NORM, RELU, *HEAD),
        "dropout_before_batch_norm",
        "/model/layers/0/layers/0",
    ),
    (spec({**CONV, "bias": True}, NORM, RELU, *HEAD), "bias_before_batch_norm", "/model/layers/0"),
    (
        spec(HEAD[0], {"type": "linear", "out_features": 5}, NORM, RELU, HEAD[1]),
        "bias_before_batch_norm",
        "/model/layers/1",
    ),
    (spec(CONV, NORM, RELU, *HEAD, RELU), "layer_behind_logits", "/model/layers/5"),
    (spec(CONV, NORM, RELU, *HEAD, DROPOUT), "layer_behind_logits", "/model/layers/5"),
    (spec(CONV, NORM, *HEAD), "no_activation_between", "/model/layers/3"),
    (spec(CONV, CONV, NORM, RELU, *HEAD), "no_activation_between", "/model/layers/1"),
    (spec(augmentation=[FLIP]), "augmentation_changes_labels", "/augmentation/0"),
    (
        spec(dataset={"type": "mnist"}, augmentation=[{"type": "random_crop"}, VERTICAL]),
        "augmentation_changes_labels",
        "/augmentation/1",
    ),
    (
        spec(augmentation=[{"type": "rotate", "degrees": 90.0}]),
        "augmentation_changes_labels",
        "/augmentation/0/degrees",
    ),
    (spec(early_stopping={"patience": 5}), "patience_never_ends", "/early_stopping/patience"),
    (spec(early_stopping={"patience": 4}), "patience_never_ends", "/early_stopping/patience"),
    (spec(schedule={"type": "reduce_on_plateau", "patience": 9}), "patience_never_ends", "/schedule/patience"),
    (
        spec(
            training={"epochs": 30},
            early_stopping={"patience": 4},
            schedule={"type": "reduce_on_plateau", "patience": 4},
        ),
        "stops_before_lr_falls",
        "/schedule/patience",
    ),
    (spec(schedule={"type": "step"}), "schedule_without_effect", "/schedule/step_size"),
    (spec(schedule={"type": "multi_step"}), "schedule_without_effect", "/schedule/milestones"),
    (spec(schedule={"type": "one_cycle", "warmup_epochs": 1.0}), "two_warmups", "/schedule/warmup_epochs"),
    (spec(schedule={"type": "cosine", "warmup_epochs": 2.5}), "warmup_too_long", "/schedule/warmup_epochs"),
    (
        spec(training={"batch_size": 1295, "drop_last": False}),
        "batch_larger_than_split",
        "/training/batch_size",
    ),
    (spec(training={"batch_size": 700}), "images_left_out", "/training/drop_last"),
    (spec(training={"ema": {}}), "average_too_slow", "/training/ema/decay"),
    (spec(HEAD[0], HEAD[1], normalization=None), "input_not_normalized", "/normalization"),
    (spec(regularizers=[{"type": "max_norm"}]), "max_norm_on_output", "/regularizers/0"),
    (
        spec(regularizers=[{"type": "max_norm", "layers": ["lin*"]}]),
        "max_norm_on_output",
        "/regularizers/0/layers",
    ),
    (spec(training={"precision": "float16", "device": "cpu"}), "slow_precision", "/training/precision"),
    (spec(optimizer={"type": "adamw"}), "decay_on_normalization", "/optimizer/weight_decay"),
    (spec(optimizer={"type": "muon"}), "decay_on_normalization", "/optimizer/partner/weight_decay"),
    (
        spec(*HEAD, optimizer={"type": "adamw"}, regularizers=[{"type": "l2"}]),
        "decay_twice",
        "/regularizers/0",
    ),
    (spec(optimizer={"type": "adam"}, regularizers=[{"type": "l2"}]), "penalty_rescaled", "/regularizers/0"),
]

SOUND = [
    CLEAN,
    spec(training={"precision": "bfloat16", "device": "cpu"}),
    spec(training={"precision": "float16"}),
    spec(DROPOUT, CONV, {"type": "layer_norm"}, RELU, *HEAD),
    spec({**DROPOUT, "keep_prob": 1.0}, CONV, NORM, RELU, *HEAD),
    spec({**CONV, "bias": True}, RELU, NORM, *HEAD),
    spec({**CONV, "out_channels": 1}, {**CONV, "kernel_size": 1, "groups": 1}, RELU, *HEAD),
    spec(dataset={"type": "fashion_mnist"}, augmentation=[FLIP, VERTICAL, {"type": "rotate", "degrees": 180.0}]),
    spec(augmentation=[{"type": "rotate", "degrees": 20.0}]),
    spec(early_stopping={"patience": 3}),
    spec(schedule={"type": "step", "step_size": 4}),
    spec(schedule={"type": "multi_step", "milestones": [4, 9]}),
    spec(
        training={"epochs": 30},
        early_stopping={"patience": 4},
        schedule={"type": "reduce_on_plateau", "patience": 4, "monitor": "train_loss"},
    ),
    spec(schedule={"type": "cosine", "warmup_epochs": 2.0}),
    spec(training={"batch_size": 1294, "drop_last": False}),
    spec(training={"ema": {"decay": 0.9}}),
    spec(NORM, *HEAD, normalization=None),
    spec(regularizers=[{"type": "max_norm", "layers": ["conv*"]}, {"type": "l2"}]),
    spec(*HEAD, optimizer={"type": "adamw"}),
    spec(optimizer={"type": "muon", "weight_decay": 0.1, "partner": {"type": "sgd"}}),
    spec(model={"type": "resnet", "depth": 8}),
]


@pytest.mark.parametrize(("sent", "code", "pointer"), FAULTS)
def test_a_fault_is_found_at_its_place_and_nothing_else_is(sent: dict[str, Any], code: str, pointer: str) -> None:
    assert [(finding.code, finding.pointer) for finding in findings(sent)] == [(code, pointer)]


@pytest.mark.parametrize("sent", SOUND)
def test_a_sound_spec_has_no_warnings(sent: dict[str, Any]) -> None:
    assert findings(sent) == ()


@pytest.mark.parametrize("sent", [sent for sent, _, _ in FAULTS if findings(sent)[0].fix])
def test_a_fix_mends_the_spec_as_sent_and_as_resolved(sent: dict[str, Any]) -> None:
    resolved = TrainingSpec.model_validate_json(json.dumps(sent)).model_dump(mode="json")
    for document in (sent, resolved):
        [finding] = findings(document)
        mended = Counter(other.code for other in findings(applied(document, finding.fix)))
        assert mended[finding.code] == 0


def test_every_rule_is_broken_by_a_fault() -> None:
    specs = [TrainingSpec.model_validate_json(json.dumps(sent)) for sent, _, _ in FAULTS]
    assert [rule.__name__ for rule in RULES if not any(list(rule(broken)) for broken in specs)] == []


def test_each_finding_names_its_source() -> None:
    assert all(finding.source for sent, _, _ in FAULTS for finding in findings(sent))
