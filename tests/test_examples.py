from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnn.spec import TrainingSpec
from tests.integration.group import Group
from tests.integration.processes import alive

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(*arguments: str | Path) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train_and_load(spec: Path, folder: Path, data_dir: Path) -> float:
    """Run demo.py against a server of its own, then load_model.py on what it downloaded; the test accuracy of both."""
    group = Group(data_dir)
    try:
        printed = run(EXAMPLES / "demo.py", "--url", str(group.client.base_url), "--spec", spec, "--output", folder)
    finally:
        group.close()
    assert not alive(group.members)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert f"SHA-256       {digest} (as the API says)" in printed
    accuracy = re.search(r"^test accuracy (.+)$", printed, re.MULTILINE)
    assert accuracy
    assert run(EXAMPLES / "load_model.py", folder, data_dir) == f"{accuracy[1]}\n"
    return float(accuracy[1])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.name)
def test_every_example_is_a_valid_spec(path: Path) -> None:
    assert TrainingSpec.model_validate_json(path.read_bytes()).plan().num_parameters > 0


def test_the_demo_spec_uses_what_it_is_to_show() -> None:
    spec = json.loads((EXAMPLES / "fashion.json").read_text())
    assert {transform["type"] for transform in spec["augmentation"]} >= {"random_crop", "horizontal_flip", "translate"}
    assert {regularizer["type"] for regularizer in spec["regularizers"]} >= {"l2", "max_norm"}
    assert "dropout" in {layer["type"] for layer in spec["model"]["layers"]}
    used = [spec[family]["type"] for family in ("normalization", "optimizer", "schedule")]
    assert used == ["standardize", "nesterov", "one_cycle"]
    assert spec["early_stopping"]["monitor"] == "val_loss"


def test_the_downloaded_network_has_the_accuracy_that_was_reported(tmp_path: Path) -> None:
    assert train_and_load(EXAMPLES / "digits.json", tmp_path / "downloads", tmp_path / "data") > 0.95


@pytest.mark.slow
def test_the_demo_reaches_the_accuracy_it_promises(tmp_path: Path) -> None:
    assert train_and_load(EXAMPLES / "fashion.json", tmp_path / "downloads", tmp_path / "data") >= 0.90


def test_the_demo_shows_why_a_spec_is_refused(tmp_path: Path) -> None:
    spec = json.loads((EXAMPLES / "digits.json").read_text())
    spec["optimizer"]["lr"] = -1
    (tmp_path / "bad.json").write_text(json.dumps(spec))
    group = Group(tmp_path / "data")
    try:
        done = subprocess.run(
            [
                sys.executable,
                EXAMPLES / "demo.py",
                "--url",
                str(group.client.base_url),
                "--spec",
                tmp_path / "bad.json",
            ],
            capture_output=True,
            text=True,
        )
    finally:
        group.close()
    assert done.returncode == 1
    assert "/spec/optimizer/lr" in done.stderr
