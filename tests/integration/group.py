"""A whole epochd as a user starts it, for tests that talk to it or kill parts of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.integration.processes import descendants, trainers, wait_until

EPOCHD = Path(sys.executable).parent / "epochd"
LONG_JOB = {
    "dataset": {"type": "digits"},
    "model": {"type": "layers", "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
    "optimizer": {"type": "sgd", "lr": 0.01},
    "training": {"epochs": 100_000},
}


class Group:
    """A running `epochd up --dev` on a data directory and a port of its own."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.log = data_dir.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [EPOCHD, "up", "--dev"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "EPOCHD_DATA_DIR": str(data_dir), "EPOCHD_PORT": "0", **environment},
            )
        wait_until(self._answered, seconds=60)
        ready = re.search(r"ready at (\S+)", self.log.read_text())
        assert ready, self.log.read_text()
        self.client = httpx.Client(base_url=ready[1])
        self.members = descendants(self.process.pid)

    def _answered(self) -> bool:
        return self.process.poll() is not None or "ready at" in self.log.read_text()

    def is_ready(self) -> bool:
        try:
            return self.client.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def train(self) -> str:
        """Submit a job that would run for hours, and wait until it trains; its id."""
        job = self.client.post("/v1/jobs", json={"spec": LONG_JOB}).raise_for_status().json()
        wait_until(lambda: self.client.get(job["links"]["self"]).json()["phase"] == "training", seconds=60)
        self.members = descendants(self.process.pid)
        assert trainers(self.process.pid)
        return str(job["id"])

    def signal(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
