"""API keys: who may ask, and for what. Only the SHA-256 of a key is stored."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update
from ulid import ULID

from worker.store.tables import api_keys as keys

SECRET = re.compile("epk_[0-9a-f]{64}")
USE_KEPT = timedelta(minutes=1)
"""`last_used_at` is that exact, so that not every request writes."""


class Scope(StrEnum):
    """What a key is good for; each includes those before it."""

    READ = "read"
    """See one's own jobs and what they made."""
    SUBMIT = "submit"
    """Submit, change and delete."""
    ADMIN = "admin"
    """The jobs of all keys, and the keys themselves."""

    def includes(self, other: Scope) -> bool:
        scopes = list(Scope)
        return scopes.index(self) >= scopes.index(other)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A key's quotas; None is no limit."""

    max_queued: int | None = None
    """Jobs that wait: queued or paused."""
    max_running: int | None = None
    max_stored_bytes: int | None = None
    """Artifacts, with what those of jobs that have not ended will need."""
    max_device_seconds: int | None = None
    """Time of all attempts, with what jobs that have not ended may still take."""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as it is stored."""

    id: str
    name: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    limits: Limits
    device_seconds: float
    """Time of its jobs' attempts that have ended, of deleted jobs too."""

    @property
    def active(self) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > datetime.now(UTC))


class KeyNotFound(LookupError):
    """There is no key of this id."""


def create(
    c: Connection, *, name: str, scope: Scope, expires_at: datetime | None = None, limits: Limits = Limits()
) -> tuple[ApiKey, str]:
    """Write a new key; returns it with the secret, of 256 random bits, that nobody can read again."""
    secret = f"epk_{secrets.token_hex(32)}"
    key_id = f"key_{str(ULID()).lower()}"
    c.execute(
        insert(keys).values(
            id=key_id,
            name=name,
            scope=scope,
            sha256=digest(secret),
            created_at=datetime.now(UTC),
            expires_at=expires_at,
            device_seconds=0.0,
            **asdict(limits),
        )
    )
    return get(c, key_id), secret


def get(c: Connection, key_id: str) -> ApiKey:
    """The key of this id.

    Raises:
        KeyNotFound: there is none.
    """
    row = c.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
    if row is None:
        raise KeyNotFound(key_id)
    return _key(row)


def find(c: Connection, secret: str) -> ApiKey | None:
    """The key of this secret, active or not.

    It is looked up by its digest: how long that takes tells nothing of the secrets whose digests are stored.
    """
    row = c.execute(select(keys).where(keys.c.sha256 == digest(secret))).one_or_none()
    return None if row is None else _key(row)


def page(c: Connection, *, limit: int, before: str | None = None) -> Sequence[ApiKey]:
    """The newest keys, of those with an id below `before`."""
    query = select(keys) if before is None else select(keys).where(keys.c.id < before)
    return [_key(row) for row in c.execute(query.order_by(keys.c.id.desc()).limit(limit))]


def any_active(c: Connection) -> bool:
    """Whether somebody could ask at all."""
    active = keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > datetime.now(UTC))
    return c.execute(select(keys.c.id).where(*active).limit(1)).one_or_none() is not None


def limit(c: Connection, key_id: str, limits: Limits) -> ApiKey:
    """Set the quotas of a key.

    Raises:
        KeyNotFound: there is none.
    """
    c.execute(update(keys).where(keys.c.id == key_id).values(asdict(limits)))
    return get(c, key_id)


def revoke(c: Connection, key_id: str) -> ApiKey:
    """End a key, from now on and for good; its jobs go on. Repeating it is harmless.

    Raises:
        KeyNotFound: there is none.
    """
    now = func.coalesce(keys.c.revoked_at, datetime.now(UTC))
    c.execute(update(keys).where(keys.c.id == key_id).values(revoked_at=now))
    return get(c, key_id)


def used(c: Connection, key_id: str) -> None:
    """Note that a key was used now."""
    c.execute(update(keys).where(keys.c.id == key_id).values(last_used_at=datetime.now(UTC)))


def digest(secret: str) -> str:
    """What is stored of a secret. It has 256 random bits, so that a slow hash would protect nothing more."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Row[Any]) -> ApiKey:
    columns = row._asdict()
    del columns["sha256"]
    limits = Limits(**{name: columns.pop(name) for name in Limits.__dataclass_fields__})
    return ApiKey(**{**columns, "scope": Scope(columns["scope"])}, limits=limits)
