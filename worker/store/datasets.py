"""Registered datasets, and the contact sheets that are wanted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from ulid import ULID

from worker.jobs import JobStatus
from worker.store import uploads
from worker.store.dataset_tables import datasets, sheets
from worker.store.tables import jobs
from worker.store.uploads import Upload

MAX_ATTEMPTS = 3
SHEET_KEPT = timedelta(hours=1)


class DatasetStatus(StrEnum):
    VALIDATING = "validating"
    """A worker reads it, or will."""
    READY = "ready"
    """Jobs may use it; it never changes again."""
    REFUSED = "refused"
    """Its report says why."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    id: str
    owner_id: str | None
    name: str
    format: dict[str, Any]
    upload_id: str
    upload_sha256: str
    status: DatasetStatus
    attempts: int
    """How often a worker has begun to validate it."""
    digest: str | None
    content: dict[str, Any] | None
    """What a spec holds of it: `cnn.datasets.Content`."""
    bytes: int | None
    """Room that its arrays take."""
    report: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A contact sheet; finished, it is a file or an error."""

    key: str
    dataset_id: str
    spec: dict[str, Any]
    error: str | None
    requested_at: datetime
    finished_at: datetime | None


class DatasetInUse(Exception):
    """Jobs that have not ended need it."""

    def __init__(self, dataset_id: str, job_ids: Sequence[str]) -> None:
        super().__init__(f"dataset {dataset_id} is needed by jobs that have not ended: {', '.join(job_ids)}")
        self.job_ids = job_ids


def create(c: Connection, *, owner_id: str | None, name: str, format: dict[str, Any], upload: Upload) -> Dataset | None:
    """A new dataset that waits for its validation; None when its upload has just been removed."""
    if not uploads.keep(c, upload.id):
        return None
    dataset_id = f"ds_{str(ULID()).lower()}"
    c.execute(
        insert(datasets).values(
            id=dataset_id,
            owner_id=owner_id,
            name=name,
            format=format,
            upload_id=upload.id,
            upload_sha256=upload.sha256,
            status=DatasetStatus.VALIDATING,
            attempts=0,
            created_at=datetime.now(UTC),
        )
    )
    return get(c, dataset_id)


def get(c: Connection, dataset_id: str, *, keep: bool = False) -> Dataset | None:
    """The dataset with this id.

    Args:
        keep: nobody can delete it until the transaction ends.
    """
    query = select(datasets).where(datasets.c.id == dataset_id)
    row = c.execute(query.with_for_update(read=True) if keep else query).one_or_none()
    return None if row is None else _dataset(row._asdict())


def page(
    c: Connection,
    *,
    limit: int,
    owner_id: str | None = None,
    before: str | None = None,
    statuses: Sequence[DatasetStatus] = (),
) -> list[Dataset]:
    """The `limit` newest datasets of this owner (of all without one), with an id below `before`."""
    query = select(datasets)
    if owner_id is not None:
        query = query.where(datasets.c.owner_id == owner_id)
    if before is not None:
        query = query.where(datasets.c.id < before)
    if statuses:
        query = query.where(datasets.c.status.in_(statuses))
    rows = c.execute(query.order_by(datasets.c.id.desc()).limit(limit))
    return [_dataset(row._asdict()) for row in rows]


def validating(c: Connection) -> Sequence[str]:
    """The datasets that wait for their validation, or are in it, oldest first."""
    query = select(datasets.c.id).where(datasets.c.status == DatasetStatus.VALIDATING).order_by(datasets.c.id)
    return c.execute(query).scalars().all()


def begin(c: Connection, dataset_id: str) -> Dataset | None:
    """Count one more attempt to validate it; None when it is no longer to be validated."""
    waiting = datasets.c.id == dataset_id, datasets.c.status == DatasetStatus.VALIDATING
    counted = update(datasets).where(*waiting).values(attempts=datasets.c.attempts + 1)
    row = c.execute(counted.returning(datasets)).one_or_none()
    return None if row is None else _dataset(row._asdict())


def give_back(c: Connection, dataset_id: str) -> None:
    """An attempt that its worker broke off does not count."""
    waiting = datasets.c.id == dataset_id, datasets.c.status == DatasetStatus.VALIDATING
    c.execute(update(datasets).where(*waiting).values(attempts=datasets.c.attempts - 1))


def accept(c: Connection, dataset_id: str, *, content: dict[str, Any], num_bytes: int, report: dict[str, Any]) -> None:
    """It may be used from now on."""
    values = {"status": DatasetStatus.READY, "content": content, "digest": content["digest"], "bytes": num_bytes}
    _finish(c, dataset_id, **values, report=report)


def refuse(c: Connection, dataset_id: str, report: dict[str, Any]) -> None:
    _finish(c, dataset_id, status=DatasetStatus.REFUSED, report=report)


def remove(c: Connection, dataset_id: str) -> str | None:
    """Delete a dataset; returns its digest when no other one has the same arrays. Records of ended jobs keep its id.

    Raises:
        DatasetInUse: jobs that have not ended need it.
    """
    dataset = c.execute(select(datasets.c.digest).where(datasets.c.id == dataset_id).with_for_update()).one()
    ended = [status for status in JobStatus if status.terminal]
    using = select(jobs.c.id).where(jobs.c.dataset_id == dataset_id, jobs.c.status.not_in(ended))
    job_ids = c.execute(using.order_by(jobs.c.id).limit(10)).scalars().all()
    if job_ids:
        raise DatasetInUse(dataset_id, job_ids)
    c.execute(delete(sheets).where(sheets.c.dataset_id == dataset_id))
    c.execute(delete(datasets).where(datasets.c.id == dataset_id))
    others = select(func.count()).select_from(datasets).where(datasets.c.digest == dataset.digest)
    return dataset.digest if dataset.digest and not c.execute(others).scalar_one() else None


def stored(c: Connection, owner_id: str | None) -> int:
    """Bytes that an owner's datasets take, equal ones counted each."""
    mine = datasets.c.owner_id.is_not_distinct_from(owner_id)
    return int(c.execute(select(func.coalesce(func.sum(datasets.c.bytes), 0)).where(mine)).scalar_one())


def want_sheet(c: Connection, *, key: str, dataset_id: str, spec: dict[str, Any]) -> Sheet:
    """The sheet of this key, asked for now if nobody has; one that failed a while ago is tried again."""
    c.execute(delete(sheets).where(sheets.c.finished_at < datetime.now(UTC) - SHEET_KEPT))
    found = c.execute(select(sheets).where(sheets.c.key == key)).one_or_none()
    if found is None:
        values = {"key": key, "dataset_id": dataset_id, "spec": spec, "requested_at": datetime.now(UTC)}
        found = c.execute(insert(sheets).values(values).returning(sheets)).one()
    return Sheet(**found._asdict())


def waiting_sheets(c: Connection) -> list[Sheet]:
    """The sheets that are still to be drawn, the first that was asked for first."""
    query = select(sheets).where(sheets.c.finished_at.is_(None)).order_by(sheets.c.requested_at)
    return [Sheet(**row._asdict()) for row in c.execute(query)]


def finish_sheet(c: Connection, key: str, error: str | None) -> None:
    """It is drawn, or cannot be."""
    values = {"error": error, "finished_at": datetime.now(UTC)}
    c.execute(update(sheets).where(sheets.c.key == key, sheets.c.finished_at.is_(None)).values(values))


def _finish(c: Connection, dataset_id: str, **values: Any) -> None:
    waiting = datasets.c.id == dataset_id, datasets.c.status == DatasetStatus.VALIDATING
    c.execute(update(datasets).where(*waiting).values(**values, finished_at=datetime.now(UTC)))


def _dataset(columns: dict[str, Any]) -> Dataset:
    return Dataset(**{**columns, "status": DatasetStatus(columns["status"])})
