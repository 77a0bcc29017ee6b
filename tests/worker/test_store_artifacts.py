from __future__ import annotations

from cnn.spec import TrainingSpec
from worker.jobs import JobStatus
from worker.store import artifacts, attempts, events, jobs
from worker.store.artifacts import NewArtifact
from worker.store.database import Database

FILES = [
    NewArtifact(name="labels.json", bytes=5, sha256="a" * 64, media_type="application/json", step=30),
    NewArtifact(name="model.safetensors", bytes=9, sha256="b" * 64, media_type="application/octet-stream", step=30),
]


def test_artifacts_become_visible_with_the_end_of_the_job(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        jobs.create(c, spec=spec, name=None)
        job = attempts.claim(c, worker_id="w", device="cpu")
        assert job is not None
        artifacts.add(c, job.id, job.token, FILES)
        attempts.finish(c, job.id, job.token, JobStatus.CANCELLED, reason="cancelled")
    with database.read() as c:
        listed = artifacts.list_for(c, job.id)
        assert [file.name for file in listed] == ["model.safetensors", "labels.json"]
        assert artifacts.get(c, job.id, "labels.json") == listed[1]
        assert (listed[1].bytes, listed[1].sha256, listed[1].step) == (5, "a" * 64, 30)
        assert artifacts.get(c, job.id, "labels") is None
        assert artifacts.list_for(c, "job_missing") == []
        told = events.after(c, job.id, 0, 99, ["job.artifact"])
        assert [event.data["name"] for event in told] == ["labels.json", "model.safetensors"]


def test_a_later_attempt_replaces_files_of_the_same_name(database: Database, spec: TrainingSpec) -> None:
    with database.write() as c:
        jobs.create(c, spec=spec, name=None)
        job = attempts.claim(c, worker_id="w", device="cpu")
        assert job is not None
        artifacts.add(c, job.id, job.token, FILES[:1])
        artifacts.add(c, job.id, job.token, FILES)
        assert len(artifacts.list_for(c, job.id)) == 2
