"""Uploads: files that come in parts, until a dataset is registered from them or nobody goes on with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select, update
from ulid import ULID

from worker.store.dataset_tables import datasets, uploads

KEPT = timedelta(hours=24)
"""How long an upload is kept after its last part."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    id: str
    owner_id: str | None
    filename: str | None
    bytes: int
    sha256: str
    """What the whole must have, in hex."""
    received: int
    """Bytes of the parts that have come."""
    created_at: datetime
    expires_at: datetime
    completed_at: datetime | None
    """When the whole was there and had the right digest."""

    @property
    def complete(self) -> bool:
        return self.completed_at is not None


def create(c: Connection, *, owner_id: str | None, filename: str | None, size: int, sha256: str) -> tuple[Upload, bool]:
    """The owner's upload of this content, and whether it is new; one that is there is kept for longer.

    What others have uploaded is not looked at: who knows a digest need not have the file.
    """
    same = select(uploads.c.id).where(
        uploads.c.sha256 == sha256, uploads.c.bytes == size, uploads.c.owner_id.is_not_distinct_from(owner_id)
    )
    found = c.execute(same.order_by(uploads.c.received.desc(), uploads.c.id).limit(1)).scalar_one_or_none()
    if found is not None and keep(c, found):
        return existing(c, found), False
    now = datetime.now(UTC)
    upload_id = f"up_{str(ULID()).lower()}"
    c.execute(
        insert(uploads).values(
            id=upload_id,
            owner_id=owner_id,
            filename=filename,
            bytes=size,
            sha256=sha256,
            received=0,
            created_at=now,
            expires_at=now + KEPT,
        )
    )
    return existing(c, upload_id), True


def get(c: Connection, upload_id: str) -> Upload | None:
    row = c.execute(select(uploads).where(uploads.c.id == upload_id)).one_or_none()
    return None if row is None else Upload(**row._asdict())


def existing(c: Connection, upload_id: str) -> Upload:
    """The upload with this id, which is known to be there."""
    return Upload(**c.execute(select(uploads).where(uploads.c.id == upload_id)).one()._asdict())


def keep(c: Connection, upload_id: str) -> bool:
    """Keep an upload for longer; false when it has just been removed."""
    later = update(uploads).where(uploads.c.id == upload_id).values(expires_at=datetime.now(UTC) + KEPT)
    return c.execute(later.returning(uploads.c.id)).one_or_none() is not None


def advance(c: Connection, upload_id: str, received: int, *, complete: bool) -> Upload | None:
    """Record that a part has come, and whether it was the last; None when the upload was removed meanwhile."""
    now = datetime.now(UTC)
    values = {"received": received, "expires_at": now + KEPT, "completed_at": now if complete else None}
    row = c.execute(update(uploads).where(uploads.c.id == upload_id).values(values).returning(uploads)).one_or_none()
    return None if row is None else Upload(**row._asdict())


def outstanding(c: Connection) -> int:
    """Bytes that have been announced and not come yet."""
    return int(c.execute(select(func.coalesce(func.sum(uploads.c.bytes - uploads.c.received), 0))).scalar_one())


def stored(c: Connection, owner_id: str | None) -> int:
    """Bytes that an owner's uploads take, or will."""
    mine = uploads.c.owner_id.is_not_distinct_from(owner_id)
    return int(c.execute(select(func.coalesce(func.sum(uploads.c.bytes), 0)).where(mine)).scalar_one())


def in_use(c: Connection, upload_id: str) -> bool:
    """Whether a dataset is being validated from it."""
    using = select(datasets.c.id).where(datasets.c.upload_id == upload_id, datasets.c.status == "validating")
    return c.execute(using.limit(1)).one_or_none() is not None


def remove(c: Connection, upload_id: str) -> None:
    c.execute(delete(uploads).where(uploads.c.id == upload_id))


def remove_expired(c: Connection) -> Sequence[str]:
    """Forget the uploads whose time is over; returns their ids."""
    validating = select(datasets.c.upload_id).where(datasets.c.status == "validating")
    expired = uploads.c.expires_at < datetime.now(UTC), uploads.c.id.not_in(validating)
    return c.execute(delete(uploads).where(*expired).returning(uploads.c.id)).scalars().all()
