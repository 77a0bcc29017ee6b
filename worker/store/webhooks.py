"""Webhooks: URLs that are told what becomes of jobs.

Their secrets are stored as they are, because every delivery is signed with them anew.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, func, insert, or_, select, update
from ulid import ULID

from worker.store import event_log
from worker.store.tables import api_keys
from worker.store.webhook_tables import deliveries, webhooks

TEST_TYPE = "webhook.test"
SECRET_BYTES = 32
MAX_WEBHOOKS = 20
"""Of one owner."""
OLD_SECRET_KEPT = timedelta(hours=24)


class EventType(StrEnum):
    """What a webhook may be told: the status that a job has come to."""

    QUEUED = "job.queued"
    RUNNING = "job.running"
    PAUSED = "job.paused"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A webhook as it is stored, without its secrets."""

    id: str
    owner_id: str | None
    url: str
    types: tuple[EventType, ...]
    created_at: datetime
    last_delivered_at: datetime | None
    """When a delivery last succeeded."""
    disabled_at: datetime | None
    disabled_reason: str | None

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None


_ANY_ENABLED = select(exists().where(webhooks.c.disabled_at.is_(None)))


class WebhookNotFound(LookupError):
    """There is no webhook of this id."""


class TooManyWebhooks(Exception):
    """The owner has `MAX_WEBHOOKS` already."""


def create(c: Connection, *, owner_id: str | None, url: str, types: Sequence[EventType]) -> tuple[Webhook, str]:
    """Write a webhook that is told what happens from now on; returns it with its secret.

    Raises:
        TooManyWebhooks: the owner has no room for one more.
    """
    count = select(func.count()).select_from(webhooks).where(webhooks.c.owner_id.is_not_distinct_from(owner_id))
    if c.execute(count).scalar_one() >= MAX_WEBHOOKS:
        raise TooManyWebhooks
    webhook_id, secret = f"wh_{str(ULID()).lower()}", _new_secret()
    c.execute(
        insert(webhooks).values(
            id=webhook_id,
            owner_id=owner_id,
            url=url,
            types=list(types),
            secret=secret,
            after_number=event_log.last_number(c),
            created_at=datetime.now(UTC),
        )
    )
    return get(c, webhook_id), secret


def get(c: Connection, webhook_id: str) -> Webhook:
    """The webhook of this id.

    Raises:
        WebhookNotFound: there is none.
    """
    row = c.execute(select(webhooks).where(webhooks.c.id == webhook_id)).one_or_none()
    if row is None:
        raise WebhookNotFound(webhook_id)
    return _webhook(row)


def page(c: Connection, *, limit: int, before: str | None = None, owner_id: str | None = None) -> Sequence[Webhook]:
    """The newest webhooks (of one owner, if named), of those with an id below `before`."""
    query = select(webhooks)
    if before is not None:
        query = query.where(webhooks.c.id < before)
    if owner_id is not None:
        query = query.where(webhooks.c.owner_id == owner_id)
    return [_webhook(row) for row in c.execute(query.order_by(webhooks.c.id.desc()).limit(limit))]


def enable(c: Connection, webhook_id: str) -> Webhook:
    """Deliver again: what is still pending, and what happens from now on. Repeating it is harmless.

    Raises:
        WebhookNotFound: there is none.
    """
    disabled = webhooks.c.id == webhook_id, webhooks.c.disabled_at.is_not(None)
    values = {"disabled_at": None, "disabled_reason": None, "after_number": event_log.last_number(c)}
    c.execute(update(webhooks).where(*disabled).values(values))
    return get(c, webhook_id)


def disable(c: Connection, webhook_id: str, reason: str) -> None:
    """Deliver nothing until it is enabled again; what is pending waits."""
    values = {"disabled_at": datetime.now(UTC), "disabled_reason": reason}
    c.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))


def rotate(c: Connection, webhook_id: str) -> tuple[Webhook, str]:
    """Give a webhook a new secret; the old one signs beside it for `OLD_SECRET_KEPT`.

    Raises:
        WebhookNotFound: there is none.
    """
    secret, until = _new_secret(), datetime.now(UTC) + OLD_SECRET_KEPT
    values = {"secret": secret, "old_secret": webhooks.c.secret, "old_secret_until": until}
    c.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))
    return get(c, webhook_id), secret


def remove(c: Connection, webhook_id: str) -> None:
    """Delete a webhook with its deliveries.

    Raises:
        WebhookNotFound: there is none.
    """
    get(c, webhook_id)
    c.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
    c.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


def any_enabled(c: Connection) -> bool:
    """Whether there is a webhook that is not disabled; where there is none, nobody is to be told anything."""
    return bool(c.execute(_ANY_ENABLED).scalar_one())


def receives() -> ColumnElement[bool]:
    """Whether something may be delivered: the webhook is enabled, and the key that made it is active."""
    unexpired = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > datetime.now(UTC))
    active = select(api_keys.c.id).where(api_keys.c.revoked_at.is_(None), unexpired)
    return webhooks.c.disabled_at.is_(None) & or_(webhooks.c.owner_id.is_(None), webhooks.c.owner_id.in_(active))


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        id=row.id,
        owner_id=row.owner_id,
        url=row.url,
        types=tuple(map(EventType, row.types)),
        created_at=row.created_at,
        last_delivered_at=row.last_delivered_at,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
    )
