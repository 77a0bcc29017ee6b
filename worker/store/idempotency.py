"""Answers kept under the key that a client chose, so that a request that is sent again is not carried out again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.store.tables import idempotency_keys as keys

KEPT = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """What the first request of a key was, and what it got; `status_code` is 0 while it is being carried out."""

    request_digest: str
    status_code: int
    headers: Mapping[str, str]
    body: str


def take(c: Connection, *, owner: str, key: str, request_digest: str) -> KeptAnswer | None:
    """Take a key for a request, or get what its first request got; belongs in the transaction that does the work.

    A second transaction that takes the same key waits here until the first has ended, and then sees its answer.
    """
    now = datetime.now(UTC)
    c.execute(delete(keys).where(keys.c.expires_at <= now))
    dialect = postgresql if c.dialect.name == "postgresql" else sqlite
    new = dialect.insert(keys).values(
        owner=owner,
        key=key,
        request_digest=request_digest,
        status_code=0,
        headers={},
        body="",
        expires_at=now + KEPT,
    )
    if c.execute(new.on_conflict_do_nothing().returning(keys.c.key)).one_or_none() is not None:
        return None
    columns = keys.c.request_digest, keys.c.status_code, keys.c.headers, keys.c.body
    row = c.execute(select(*columns).where(keys.c.owner == owner, keys.c.key == key)).one()
    return KeptAnswer(**row._asdict())


def keep(c: Connection, *, owner: str, key: str, status_code: int, headers: Mapping[str, str], body: str) -> None:
    """Keep the answer of the request that has taken the key."""
    values = {"status_code": status_code, "headers": dict(headers), "body": body}
    c.execute(update(keys).where(keys.c.owner == owner, keys.c.key == key).values(values))
