from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from cnn.native.build import library_path
from cnn.spec import TrainingSpec
from tests.integration.processes import wait_until


@dataclass
class Trainer:
    """A `python -m worker.trainer` whose supervisor is the test."""

    process: subprocess.Popen[bytes]
    folder: Path
    silent: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def begin(self, request: str) -> None:
        """Send the request, and ping from then on."""
        self.send(request)
        threading.Thread(target=self.ping, daemon=True).start()

    def send(self, line: str) -> None:
        self.stdin.write(line.encode() + b"\n")

    def ping(self) -> None:
        while True:
            with self.lock:
                if self.silent:
                    return
                with suppress(BrokenPipeError):
                    self.send("ping")
            time.sleep(0.5)

    def fall_silent(self) -> None:
        with self.lock:
            self.silent = True

    def hang_up(self) -> None:
        self.fall_silent()
        self.stdin.close()

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events").read_text().splitlines()]

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages()]

    def errors(self) -> str:
        return (self.folder / "log").read_text()


@contextmanager
def trainer(folder: Path) -> Iterator[Trainer]:
    (folder / "events").touch()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", f'exec "{sys.executable}" -m worker.trainer 3> "{folder}/events"'],
            bufsize=0,  # a ping to a dead process must not wait for the file to be closed
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    with process:
        running = Trainer(process, folder)
        yield running
        running.fall_silent()
        process.kill()


def request(folder: Path, spec: TrainingSpec, **changes: object) -> str:
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "artifacts").mkdir(exist_ok=True)
    return json.dumps(
        {
            "job_id": "job_1",
            "attempt": 1,
            "spec": spec.model_dump(mode="json"),
            "dataset_dir": str(folder),
            "workdir": str(folder),
            "checkpoints_dir": str(folder / "checkpoints"),
            "artifacts_dir": str(folder / "artifacts"),
            "init_weights": None,
            "resume_from": None,
            "threads": 1,
            "device": "cpu",
            "native": False,
            **changes,
        }
    )


def with_training(spec: TrainingSpec, **changes: object) -> TrainingSpec:
    return spec.model_copy(update={"training": spec.training.model_copy(update=changes)})


@pytest.mark.parametrize("native", [True, False])
def test_it_uses_compiled_kernels_where_they_are_wanted_and_there(tmp_path: Path, native: bool) -> None:
    with trainer(tmp_path) as running:
        running.begin(json.dumps({"threads": 1, "device": "cpu", "native": native}))
        assert running.process.wait(60) == 0, running.errors()
    (started,) = running.messages()
    assert ("native" in started["determinism"]) == (native and library_path().exists())


def test_it_tells_a_run_from_its_start_to_its_result(tmp_path: Path, spec: TrainingSpec) -> None:
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, with_training(spec, epochs=1)))
        assert running.process.wait(60) == 0, running.errors()
    messages = running.messages()
    assert (messages[0]["type"], messages[0]["threads"], messages[0]["determinism"]["threads"]) == ("started", 1, 1)
    assert running.types()[1:3] == ["phase", "dataset"]
    phases = [message["phase"] for message in messages if message["type"] == "phase"]
    assert phases == ["preparing_data", "training", "evaluating", "exporting"]
    assert messages[2]["digest"].startswith("sha256:")
    (checkpoint,) = (message for message in messages if message["type"] == "checkpoint")
    assert Path(checkpoint["path"]).is_dir()
    (epoch,) = (message for message in messages if message["type"] == "metrics")
    assert {"train_loss", "val_loss", "lr"} <= epoch["values"].keys()
    files = {message["name"]: Path(message["path"]) for message in messages if message["type"] == "artifact"}
    assert "model.safetensors" in files
    assert all(path.parent == tmp_path / "artifacts" and path.is_file() for path in files.values())
    assert messages[-1]["type"] == "result"
    log = running.errors().splitlines()
    assert log[0].startswith(f"epoch 1  step {epoch['step']}  train_loss ")
    assert log[-1].startswith(f"test_loss {messages[-1]['test_loss']:.6f}")


def test_it_ends_when_its_supervisor_closes_the_pipe(tmp_path: Path, spec: TrainingSpec) -> None:
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, with_training(spec, epochs=100_000)))
        wait_until(lambda: "metrics" in running.types(), seconds=30)
        running.hang_up()
        assert running.process.wait(2) == 70
    assert "supervisor is gone" in running.errors()


def test_it_ends_when_its_supervisor_falls_silent(tmp_path: Path, spec: TrainingSpec) -> None:
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, with_training(spec, epochs=100_000)))
        wait_until(lambda: "metrics" in running.types(), seconds=30)
        running.fall_silent()
        assert running.process.wait(12) == 70


def test_sigterm_stops_it_behind_a_checkpoint(tmp_path: Path, spec: TrainingSpec) -> None:
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, with_training(spec, epochs=100_000)))
        wait_until(lambda: "metrics" in running.types(), seconds=30)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 75
    assert running.types()[-2:] == ["checkpoint", "stopped"]
    checkpoint, stopped = running.messages()[-2:]
    assert checkpoint["step"] == stopped["step"] > 0


def test_sigterm_before_training_ends_it_at_once(tmp_path: Path, spec: TrainingSpec) -> None:
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, spec))
        wait_until(lambda: _catches_sigterm(running.process.pid))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 75
    assert running.messages()[-1] == {"type": "stopped", "epoch": 0, "step": 0}


def test_a_run_that_diverges_is_an_error_of_the_user(tmp_path: Path) -> None:
    layers = [{"type": "flatten"}, *[{"type": "linear", "out_features": 10}] * 4]
    wild = TrainingSpec.model_validate_json(
        json.dumps(
            {
                "dataset": {"type": "digits"},
                "model": {"type": "layers", "layers": layers},
                "optimizer": {"type": "sgd", "lr": 1e6},
            }
        )
    )
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, wild))
        assert running.process.wait(60) == 1, running.errors()
    error = running.messages()[-1]
    assert (error["type"], error["code"], error["blame"]) == ("error", "diverged", "user")
    assert "step" in error["message"]
    assert error["hint"]


def test_a_network_that_is_too_large_is_an_error_with_what_was_predicted(tmp_path: Path, spec: TrainingSpec) -> None:
    sizes = (2**16, 2**13, 10)
    layers = [{"type": "flatten"}, *({"type": "linear", "out_features": size} for size in sizes)]
    huge = {**spec.model_dump(mode="json"), "model": {"type": "layers", "layers": layers}}
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, TrainingSpec.model_validate_json(json.dumps(huge))))
        wait_until(lambda: "started" in running.types(), seconds=60)
        limit = 2**30 + address_space(running.process.pid)
        resource.prlimit(running.process.pid, resource.RLIMIT_AS, (limit, limit))
        assert running.process.wait(60) == 1, running.errors()
    error = running.messages()[-1]
    assert (error["code"], error["blame"]) == ("out_of_memory", "capacity")
    assert "predicted were" in error["message"]
    assert "training.batch_size" in error["hint"]


def test_a_gpu_that_is_not_there_is_an_error(tmp_path: Path, spec: TrainingSpec) -> None:
    with trainer(tmp_path) as running:
        running.begin(request(tmp_path, spec, device="cuda"))
        code = running.process.wait(60)
    if "started" in running.types():
        pytest.skip("this machine has a GPU")
    assert code == 1
    assert running.messages()[-1]["code"] == "device_unavailable"


def test_without_a_request_it_says_who_should_start_it(tmp_path: Path) -> None:
    with trainer(tmp_path) as running:
        running.hang_up()
        assert running.process.wait(10) == 1
    assert "started by a worker" in running.errors()


def address_space(pid: int) -> int:
    (kilobytes,) = re.findall(r"VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) * 1024


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
