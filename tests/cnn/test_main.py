"""`python -m cnn` as a person calls it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cnn.plain import small_spec


def cnn(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnn", *map(str, arguments), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def written(folder: Path, content: str) -> Path:
    path = folder / "spec.json"
    path.write_text(content)
    return path


def test_it_trains_and_resumes(tmp_path: Path) -> None:
    spec = written(tmp_path, small_spec(training={"epochs": 2}).model_dump_json())
    places: list[str | Path] = ["--data-dir", tmp_path / "data", "--output", tmp_path / "out"]
    first = cnn(spec, *places)
    assert first.returncode == 0, first.stderr
    model = tmp_path / "out" / "model.safetensors"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    lines = first.stdout.splitlines()
    assert [line.split()[:4] for line in lines[:2]] == [["epoch", "1", "step", "10"], ["epoch", "2", "step", "20"]]
    assert f"{model}  sha256 {digest}" in lines
    assert lines[-1].startswith("test_loss ")
    again = cnn(spec, *places, "--resume")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-5:] == lines[-5:]


def test_it_starts_from_weights(tmp_path: Path) -> None:
    spec = written(tmp_path, small_spec(training={"epochs": 1, "frozen": ["conv1"]}).model_dump_json())
    data: list[str | Path] = [spec, "--data-dir", tmp_path / "data"]
    first = cnn(*data, "--output", tmp_path / "first")
    model = tmp_path / "first" / "model.safetensors"
    second = cnn(*data, "--output", tmp_path / "second", "--init-from", model)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert json.loads((tmp_path / "second" / "report.json").read_text())["init_weights"]["sha256"] == (
        hashlib.sha256(model.read_bytes()).hexdigest()
    )
    missing = cnn(*data, "--output", tmp_path / "third", "--init-from", tmp_path / "nothing")
    assert missing.returncode == 1
    assert "nothing cannot be read" in missing.stderr


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    spec = written(tmp_path, small_spec(optimizer={"type": "adam"}, training={"epochs": 20}).model_dump_json())
    data: list[str | Path] = [spec, "--data-dir", tmp_path / "data"]
    assert cnn(*data, "--output", tmp_path / "whole").returncode == 0
    command = [sys.executable, "-m", "cnn", *map(str, data), "--output", str(tmp_path / "killed"), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 3 "):
                process.kill()
                break
    assert process.returncode == -9
    resumed = cnn(*data, "--output", tmp_path / "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("model.safetensors", "metrics.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    spec = written(tmp_path, small_spec().model_dump_json())
    ended = cnn(spec, "--data-dir", tmp_path, "--output", tmp_path / "out", "--resume")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"there is no checkpoint in {tmp_path / 'out' / 'checkpoints'}" in ended.stderr


def test_bad_specs_name_the_place(tmp_path: Path) -> None:
    content: dict[str, Any] = json.loads(small_spec().model_dump_json())
    content["optimizer"] = {"type": "adam", "lr": -1}
    content["optimiser"] = {}
    content["model"]["layers"][0].pop("kernel_size")
    ended = cnn(written(tmp_path, json.dumps(content)))
    assert (ended.returncode, ended.stdout) == (2, "")
    places = [line.split(": ")[1] for line in ended.stderr.splitlines()]
    assert sorted(places) == ["/model/layers/0/kernel_size", "/optimiser", "/optimizer/lr"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            small_spec()
            .model_dump_json()
            .replace('"regularizers":[]', '"regularizers":[{"type":"l2","layers":["x"]}]'),
            "/regularizers/0/layers/0: no layer with a weight is called 'x'; there are: conv1, fc1",
        ),
        ('{"dataset": ', "the file: Invalid JSON: EOF"),
    ],
)
def test_a_bad_spec_is_explained(content: str, message: str, tmp_path: Path) -> None:
    ended = cnn(written(tmp_path, content))
    assert ended.returncode == 2
    assert message in ended.stderr


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    ended = cnn(tmp_path / "nothing.json")
    assert ended.returncode == 2
    assert ended.stderr == f"{tmp_path / 'nothing.json'}: No such file or directory\n"
