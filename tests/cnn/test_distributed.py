from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from cnn.checkpoints import generations
from cnn.data import Data
from cnn.distributed import EXIT_OUT_OF_MEMORY, shared_threads
from cnn.errors import Diverged
from cnn.events import Event, Metrics, Progress, Stopped
from cnn.spec import TrainingSpec
from cnn.training import train
from tests.cnn.plain import small_spec
from tests.cnn.test_training import EVERYTHING, digest, stop_after

LAYERS = [layer for layer in EVERYTHING["model"]["layers"] if layer["type"] not in ("batch_norm", "dropout")]
UNEQUAL = {"epochs": 2, "batch_size": 101, "accumulate": 2, "drop_last": False, "max_grad_norm": 2.0}
"""Shares of 50 and 51 images, and at the end of an epoch of 1294 a minibatch of 82 in an update of its own."""


def everything(devices: int, **changes: Any) -> TrainingSpec:
    return small_spec(
        **(EVERYTHING | {"training": EVERYTHING["training"] | {"epochs": 2, "devices": devices}} | changes)
    )


def run(spec: TrainingSpec, data: Data, folder: Path, **options: Any) -> list[Event]:
    return list(train(spec, data, artifacts=folder, checkpoints=folder / "checkpoints", **options))


def values(events: list[Event]) -> list[Any]:
    return [(event.step, event.values) for event in events if isinstance(event, Metrics)]


def test_several_devices_learn_what_one_learns(digits: Data, tmp_path: Path) -> None:
    changes = {
        "model": {"type": "layers", "layers": LAYERS},
        "augmentation": [*EVERYTHING["augmentation"], {"type": "mixup"}],
        "loss": {"type": "cross_entropy", "label_smoothing": 0.1, "class_weights": "balanced"},
    }
    weights, metrics = {}, {}
    for number in (1, 3):
        spec = everything(number, **changes, training=UNEQUAL | {"devices": number})
        metrics[number] = values(run(spec, digits, tmp_path / str(number)))
        weights[number] = load_file(tmp_path / str(number) / "model.safetensors")
    for name, expected in weights[1].items():
        torch.testing.assert_close(weights[3][name], expected, rtol=1e-3, atol=1e-5)
    for (step, row), (expected_step, expected_row) in zip(metrics[3], metrics[1], strict=True):
        assert step == expected_step
        assert row == pytest.approx(expected_row, rel=1e-3)


def test_a_run_that_is_stopped_and_then_loses_a_rank_goes_on_to_equal_bytes(digits: Data, tmp_path: Path) -> None:
    spec, checkpoints = everything(3), tmp_path / "checkpoints"
    whole = run(spec, digits, tmp_path / "whole")
    assert isinstance(run(spec, digits, tmp_path, stop=stop_after(4))[-1], Stopped)
    events = train(spec, digits, resume_from=generations(checkpoints)[0], checkpoints=checkpoints)
    assert any(isinstance(event, Metrics) for event in events)
    os.kill(ranks_of(os.getpid())[0], signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"rank \d of 3 ended with -9"):
        list(events)
    assert ranks_of(os.getpid()) == []
    resumed = run(spec, digits, tmp_path, resume_from=generations(checkpoints)[0])
    assert values(resumed) == values(whole)
    assert resumed[-1] == whole[-1]
    assert digest(tmp_path / "model.safetensors") == digest(tmp_path / "whole" / "model.safetensors")


def test_a_rank_that_fails_ends_as_processes_do_and_its_reason_is_told(
    digits: Data, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "images.npy", digits.train_images)
    mapped = replace(digits, train_images=np.load(tmp_path / "images.npy", mmap_mode="c"))
    (tmp_path / "images.npy").unlink()
    with pytest.raises(RuntimeError, match=r"^rank 1 of 2 ended with 1: see what was written above$"):
        list(train(everything(2), mapped))
    written = capfd.readouterr().err
    assert "FileNotFoundError" in written
    assert "Fatal Python error" not in written


RANK_WITH_LITTLE_MEMORY = """
import resource
import cnn.run
from cnn import distributed

limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 2**29
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
distributed.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process so")
def test_a_rank_without_enough_memory_says_so_by_its_exit_status(digits: Data, tmp_path: Path) -> None:
    sizes = (2**16, 2**13, 10)
    layers = [{"type": "flatten"}, *({"type": "linear", "out_features": size} for size in sizes)]
    spec = small_spec(model={"type": "layers", "layers": layers}, training={"devices": 2})
    np.save(tmp_path / "images.npy", digits.train_images)
    np.save(tmp_path / "labels.npy", digits.train_labels)
    request = {
        "rank": 1,
        "threads": 1,
        "device": "cpu",
        "deterministic": False,
        "native": False,
        "spec": spec.model_dump(mode="json"),
        "digest": digits.digest,
        "images": str(tmp_path / "images.npy"),
        "labels": str(tmp_path / "labels.npy"),
        "init_weights": None,
    }
    command = [sys.executable, "-c", RANK_WITH_LITTLE_MEMORY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as rank:
        assert rank.stdin is not None
        assert rank.stderr is not None
        rank.stdin.write(json.dumps(request).encode() + b"\n")
        rank.stdin.flush()  # and stays open: at its end a rank ends well
        assert "rank 1: not enough memory: " in rank.stderr.read().decode()
        assert rank.wait(60) == EXIT_OUT_OF_MEMORY


def test_ranks_share_the_threads_of_their_process() -> None:
    torch.set_num_threads(5)
    found = []
    for devices in (1, 2, 8):
        with shared_threads(devices):
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())
    torch.set_num_threads(1)
    assert found == [5, 5, 2, 5, 1, 5]


def test_no_rank_outlives_a_run_that_is_left_or_diverges(digits: Data) -> None:
    torch.set_num_threads(2)
    events = train(everything(2), digits)
    for event in events:
        if isinstance(event, Progress):
            assert len(ranks_of(os.getpid())) == 1
            assert torch.get_num_threads() == 1
            break
    events.close()
    assert ranks_of(os.getpid()) == []
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    wild = small_spec(optimizer={"type": "sgd", "lr": 1e6}, training={"batch_size": 32, "devices": 2})
    with pytest.raises(Diverged):
        list(train(wild, digits))
    assert ranks_of(os.getpid()) == []


def ranks_of(pid: int) -> list[int]:
    """The processes that it has started and that are ranks."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "cnn.distributed" in line]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"training": {"batch_size": 2, "devices": 3}}, "/training/devices"),
        ({"training": {"batch_size": 431, "devices": 2, "drop_last": False}}, "/training/devices"),
        ({"training": {"devices": 2}, "augmentation": [{"type": "gan"}]}, "/augmentation/0"),
    ],
)
def test_what_several_devices_cannot_train_is_refused(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ValidationError) as caught:
        small_spec(**changes)
    assert caught.value.errors()[0]["ctx"]["pointer"] == pointer


def test_a_share_of_batch_normalization_needs_more_than_one_value() -> None:
    layers = [{"type": "flatten"}, {"type": "linear", "out_features": 10}, {"type": "batch_norm"}]
    model = {"type": "layers", "layers": layers}
    small_spec(model=model, training={"batch_size": 4, "devices": 2})
    with pytest.raises(ValidationError, match="more than one value per channel"):
        small_spec(model=model, training={"batch_size": 3, "devices": 2})
