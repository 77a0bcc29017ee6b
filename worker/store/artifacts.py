"""Artifacts: files for users, whose bytes are blobs named by their SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from worker.store import attempts, events
from worker.store.tables import artifacts


@dataclass(frozen=True, kw_only=True)
class NewArtifact:
    """A file whose blob is stored; `step` is the training step it belongs to."""

    name: str
    bytes: int
    sha256: str
    media_type: str
    step: int


@dataclass(frozen=True, kw_only=True)
class Artifact(NewArtifact):
    """A file that users can download."""

    created_at: datetime


def add(c: Connection, job_id: str, token: int, files: Sequence[NewArtifact]) -> None:
    """Make an attempt's files visible; belongs in the transaction that ends the job, so that their bytes stay the same.

    Raises:
        Fenced: the caller does not hold the job.
    """
    held = attempts.hold(c, job_id, token)
    now = datetime.now(UTC)
    c.execute(delete(artifacts).where(artifacts.c.job_id == job_id, artifacts.c.name.in_([f.name for f in files])))
    for file in files:
        c.execute(insert(artifacts).values(job_id=job_id, attempt=held.attempt, created_at=now, **asdict(file)))
        events.append(c, job_id, "job.artifact", asdict(file), held.attempt)


def list_for(c: Connection, job_id: str) -> list[Artifact]:
    """The job's files by name, the weights first."""
    weights_first = (artifacts.c.name != "model.safetensors", artifacts.c.name)
    rows = c.execute(select(artifacts).where(artifacts.c.job_id == job_id).order_by(*weights_first))
    return [_artifact(row._asdict()) for row in rows]


def get(c: Connection, job_id: str, name: str) -> Artifact | None:
    """The job's file of this name."""
    query = select(artifacts).where(artifacts.c.job_id == job_id, artifacts.c.name == name)
    row = c.execute(query).one_or_none()
    return None if row is None else _artifact(row._asdict())


def _artifact(columns: dict[str, object]) -> Artifact:
    del columns["job_id"], columns["attempt"]
    return Artifact(**columns)  # type: ignore[arg-type]  # the columns are the fields
