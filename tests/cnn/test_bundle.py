"""The bundle, used as its receiver would: unpacked into an empty folder, by a process that knows no package of ours."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn.bundle import write_bundle
from cnn.data import Data
from cnn.events import Artifact, Result
from cnn.training import train
from tests.cnn.plain import small_spec


@pytest.fixture(scope="module")
def artifacts(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    events = list(train(small_spec(), digits, artifacts=folder))
    assert isinstance(events[-1], Result)
    assert "bundle.tar" in [event.name for event in events if isinstance(event, Artifact)]
    return folder


@pytest.fixture
def unpacked(artifacts: Path, tmp_path: Path) -> Path:
    with tarfile.open(artifacts / "bundle.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "model"


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In isolated mode, in a folder where nothing of this package can be imported."""
    command = [sys.executable, "-I", str(script), *arguments]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=60)


def test_the_script_needs_none_of_our_packages_and_no_torch(unpacked: Path) -> None:
    text = (unpacked / "predict.py").read_text()
    imported = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))}
    assert imported <= {"__future__", "argparse", "hashlib", "json", "sys", "pathlib", "numpy", "onnxruntime", "PIL"}


def test_it_classifies_images_as_the_network_does(unpacked: Path, digits: Data) -> None:
    logits = np.load(unpacked / "golden_logits.npy")
    images = np.load(unpacked / "golden_images.npy")
    assert (images == digits.test_images[: len(images)]).all()
    paths = []
    for number, image in enumerate(images[:3]):
        paths.append(unpacked / f"{number}.png")
        Image.fromarray(image[0]).save(paths[-1])
    done = run(unpacked / "predict.py", *map(str, paths))
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == [str(row.argmax()) for row in logits[:3]]
    share = np.exp(logits[0].astype(np.float64))
    assert answers[0]["probability"] == pytest.approx(share.max() / share.sum(), abs=1e-5)


def test_it_proves_itself_and_notices_a_changed_byte(unpacked: Path) -> None:
    done = run(unpacked / "predict.py", "--verify")
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "spec.json", "golden_logits.npy"):
        content = bytearray((unpacked / name).read_bytes())
        content[-1] ^= 1
        (unpacked / name).write_bytes(content)
        done = run(unpacked / "predict.py", "--verify")
        assert (done.returncode, name in done.stderr) == (1, True)
        content[-1] ^= 1
        (unpacked / name).write_bytes(content)


def test_it_holds_the_artifacts_and_the_statistics_of_the_normalization(artifacts: Path, unpacked: Path) -> None:
    for name in ("model.safetensors", "model.onnx", "spec.json", "labels.json", "report.json", "onnx_parity.json"):
        assert (unpacked / name).read_bytes() == (artifacts / name).read_bytes()
    assert b"normalization.mean" in (unpacked / "model.safetensors").read_bytes()


def test_equal_files_give_an_equal_tar_without_times_and_owners(artifacts: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.onnx"):
        shutil.copy(artifacts / name, tmp_path / name)
    first = write_bundle(tmp_path, {"a": b"1", "b": b"2"}, 1).path.read_bytes()
    assert write_bundle(tmp_path, {"b": b"2", "a": b"1"}, 1).path.read_bytes() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in tar} == {(0, 0, 0, "")}
