"""Jobs in every state, made through the store as a worker makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cnn.spec import TrainingSpec
from worker.artifacts import BlobStore
from worker.jobs import Job, JobError, JobResult, JobStatus
from worker.logs import log_path
from worker.store import artifacts, attempts, jobs, metrics
from worker.store.artifacts import NewArtifact
from worker.store.database import Database
from worker.store.metrics import Point

SPEC: dict[str, Any] = {
    "dataset": {"type": "digits"},
    "model": {
        "type": "layers",
        "layers": [
            {"type": "conv2d", "name": "conv1", "out_channels": 4, "kernel_size": 3, "padding": "same"},
            {"type": "relu"},
            {"type": "flatten"},
            {"type": "dropout", "keep_prob": 0.8},
            {"type": "linear", "name": "fc1", "out_features": 10},
        ],
    },
    "optimizer": {"type": "sgd", "lr": 0.1},
}


@dataclass(frozen=True)
class Seed:
    database: Database
    data_dir: Path

    def queued(self, name: str | None = None) -> Job:
        with self.database.write() as connection:
            return jobs.create(connection, spec=TrainingSpec.model_validate(SPEC), name=name)

    def running(self) -> Job:
        job_id = self.queued().id
        with self.database.write() as connection:
            job = attempts.claim(connection, worker_id="w-1", device="cpu", threads=1, job_id=job_id)
        assert job is not None
        return job

    def failed(self) -> Job:
        job = self.running()
        error = JobError(
            code="diverged", message="the loss is not finite at step 7", blame="user", retryable=False, hint="lower lr"
        )
        with self.database.write() as connection:
            attempts.finish(connection, job.id, job.token, JobStatus.FAILED, reason="diverged", error=error)
        return self.get(job.id)

    def succeeded(self, files: Mapping[str, bytes]) -> Job:
        job = self.running()
        blobs = BlobStore(self.data_dir)
        folder = self.data_dir / "made"
        folder.mkdir(parents=True, exist_ok=True)
        new = []
        for name, content in files.items():
            source = folder / name
            source.write_bytes(content)
            sha256, size = blobs.put(source)
            media_type = "application/octet-stream"
            new.append(NewArtifact(name=name, bytes=size, sha256=sha256, media_type=media_type, step=20))
        result = JobResult(
            test_loss=0.25,
            test_accuracy=0.9,
            weights="best",
            epoch=2,
            step=20,
            artifact="model.safetensors",
            sha256=hashlib.sha256(files["model.safetensors"]).hexdigest(),
        )
        with self.database.write() as connection:
            artifacts.add(connection, job.id, job.token, new)
            attempts.finish(connection, job.id, job.token, JobStatus.SUCCEEDED, reason="trained", result=result)
        return self.get(job.id)

    def points(self, job: Job, values: Mapping[str, list[float | None]]) -> None:
        """The values of each series, at steps 10, 20, 30 and so on."""
        now = datetime.now(UTC)
        rows = [
            Point(key=key, epoch=index + 1, step=10 * (index + 1), value=value, at=now)
            for key, series in values.items()
            for index, value in enumerate(series)
        ]
        with self.database.write() as connection:
            metrics.append(connection, job.id, job.token, rows)

    def log(self, job: Job, text: str) -> None:
        path = log_path(self.data_dir, job.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def get(self, job_id: str) -> Job:
        with self.database.read() as connection:
            job = jobs.get(connection, job_id)
        assert job is not None
        return job
