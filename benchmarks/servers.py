"""The servers that `api.py` compares: epochd, MLflow's tracking server, and a Ray cluster of one node.

The others are installed into an environment of their own, once.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.integration.processes import command_line, descendants
from worker.settings import Settings, child_environment

PEERS = ("mlflow==3.17.2", "ray[default]==2.60.0")
START_SECONDS = 120.0
STOP_SECONDS = 15.0
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "true"}


@dataclass(frozen=True)
class Running:
    """A server with all of its processes."""

    http: httpx.Client
    pid: int

    def megabytes(self, end: str = "") -> tuple[float, float]:
        """Proportional (shared pages by shares) and private memory of the processes whose command ends so."""
        found = [_memory(pid) for pid in (self.pid, *descendants(self.pid)) if command_line(pid).endswith(end)]
        return sum(pss for pss, _ in found), sum(private for _, private in found)


def install_peers(folder: Path) -> Path:
    """The folder of their commands; takes minutes where they are not there yet."""
    commands = folder / "bin"
    if not (commands / "ray").exists() or not (commands / "mlflow").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([commands / "pip", "install", "--quiet", *PEERS], check=True)
    return commands


@contextmanager
def epochd(folder: Path, **settings: object) -> Iterator[Running]:
    """All of it, as `epochd up --dev` starts it."""
    values = {f"EPOCHD_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {**os.environ, "EPOCHD_DATA_DIR": str(folder), "EPOCHD_PORT": "0", **values}
    command = [str(Path(sys.executable).parent / "epochd"), "up", "--dev"]
    log = folder.with_suffix(".log")
    with _process(command, environment, log) as process:
        _wait(process, log, lambda: "ready at" in log.read_text())
        found = re.search(r"ready at (\S+)", log.read_text())
        assert found
        with httpx.Client(base_url=found[1], timeout=60) as http:
            yield Running(http, process.pid)


@contextmanager
def api(settings: Settings, key: str = "") -> Iterator[Running]:
    """The API alone, without a queue; asked with an API key."""
    port = _free_port()
    settings = settings.model_copy(update={"port": port, "redis_url": "redis://127.0.0.1:1/0"})
    log = settings.data_dir.with_suffix(".log")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, headers=headers)
    with _process([sys.executable, "-m", "server"], child_environment(settings), log) as process, client as http:
        _wait(process, log, lambda: _answers(http, "/healthz"))
        yield Running(http, process.pid)


@contextmanager
def mlflow(commands: Path, folder: Path) -> Iterator[Running]:
    """Its tracking server with one worker process on SQLite."""
    folder.mkdir()
    port = _free_port()
    command = [str(commands / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder)]
    with _serving(command, commands, folder.with_suffix(".log"), port, "/health") as running:
        yield running


@contextmanager
def ray(commands: Path, folder: Path) -> Iterator[Running]:
    """A head node with its dashboard, which takes jobs."""
    folder.mkdir()
    port = _free_port()
    command = [str(commands / "ray"), "start", "--head", "--block", "--port", str(_free_port())]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(port), "--temp-dir", str(folder)]
    with _serving(command, commands, folder.with_suffix(".log"), port, "/api/jobs/") as running:
        yield running


@contextmanager
def _serving(command: list[str], commands: Path, log: Path, port: int, path: str) -> Iterator[Running]:
    """A peer, once it answers to the path."""
    environment = {**os.environ, **QUIET, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    with _process(command, environment, log) as process, client as http:
        _wait(process, log, lambda: _answers(http, path))
        yield Running(http, process.pid)


@contextmanager
def _process(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        started = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in started:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"a server did not start:\n{log.read_text()}")
        time.sleep(0.1)


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).is_success
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _memory(pid: int) -> tuple[float, float]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    sizes = {name: int(size.split()[0]) / 1024 for name, _, size in (line.partition(":") for line in lines)}
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]
