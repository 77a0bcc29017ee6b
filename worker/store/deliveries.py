"""What is to be told to webhooks, and how far that got.

Deliveries are made of the log of events in one transaction with the cursor that says how far it was read: none is lost
or made twice, whoever dies. Any process may take one that is due; it then belongs to that attempt for `LEASE`. An
outcome names its attempt, so that who was overtaken changes nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select, update
from ulid import ULID

from worker.store import event_log
from worker.store import webhooks as webhook_store
from worker.store.keys import Scope
from worker.store.tables import api_keys, events, jobs
from worker.store.webhook_tables import deliveries, webhook_cursor, webhooks
from worker.store.webhooks import TEST_TYPE, Webhook

DELAYS = tuple(timedelta(seconds=seconds) for seconds in (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600))
"""Between attempts, 31.6 hours in all: the first ones of the Standard Webhooks specification's example."""
MAX_ATTEMPTS = len(DELAYS) + 1
JITTER = 0.2
"""Share of a delay that is added at random, so that receivers that were away are not met by everything at once."""
LEASE = timedelta(seconds=60)
"""How long a delivery belongs to an attempt; longer than one can take."""
KEPT = timedelta(days=7)
"""How long a delivery can be looked at once it is finished."""


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    """To be attempted, for the first time or again."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message to one webhook; `id` is the same in every attempt."""

    id: str
    webhook_id: str
    job_id: str | None
    type: str
    body: str
    status: DeliveryStatus
    attempts: int
    status_code: int | None
    """Of the newest answer."""
    error: str | None
    """Why the newest attempt failed."""
    created_at: datetime
    due_at: datetime | None
    """When it is attempted next; while it is being attempted, when that counts as lost."""
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A delivery that is to be attempted now."""

    delivery: Delivery
    url: str
    secrets: tuple[str, ...]
    """To sign with: the newest, then an older one that still counts."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended; without an error the receiver has taken the message."""

    status_code: int | None = None
    error: str | None = None
    retry_after: timedelta = timedelta(0)
    """What the receiver asks for."""
    gone: bool = False
    """Whether the receiver wants no more messages at all."""


class DeliveryNotFound(LookupError):
    """There is no delivery of this id, or no longer."""


def is_behind(c: Connection) -> bool:
    """Whether there are events that `enqueue` has not seen, and somebody to tell."""
    if not c.execute(select(exists().where(webhook_store.receives()))).scalar_one():
        return False
    return int(c.execute(select(webhook_cursor.c.last)).scalar_one()) < event_log.last_number(c)


def enqueue(c: Connection, *, limit: int = 500) -> bool:
    """Make deliveries of the next `limit` events; whether there may be more. Drops what is finished since `KEPT`.

    Which events a webhook is told of is decided here: those of its owner's jobs, or of all jobs where an administrator
    or nobody owns it, of its types, and none from before its time.
    """
    # Who waits for this lock goes on where its holder stopped.
    cursor = int(c.execute(select(webhook_cursor.c.last).with_for_update()).scalar_one())
    # Read before the events: all up to this number are there by now.
    last = event_log.last_number(c)
    query = select(webhooks, api_keys.c.scope).outerjoin(api_keys, api_keys.c.id == webhooks.c.owner_id)
    receivers = c.execute(query.where(webhook_store.receives())).all()
    if not receivers:
        return False
    cursor = max(cursor, min(receiver.after_number for receiver in receivers))
    found = _status_events(c, cursor, last, limit)
    now = datetime.now(UTC)
    made = [
        _new(receiver.id, event.job_id, f"job.{event.data['to']}", _body(event), now)
        for event in found
        for receiver in receivers
        if _concerns(receiver, event)
    ]
    if made:
        c.execute(insert(deliveries), made)
    reached = found[-1].number if len(found) == limit else last
    c.execute(update(webhook_cursor).values(last=reached))
    c.execute(delete(deliveries).where(deliveries.c.finished_at < now - KEPT))
    return reached < last


def _status_events(c: Connection, after: int, until: int, limit: int) -> Sequence[Row[Any]]:
    wanted = events.c.number > after, events.c.number <= until, events.c.type == "job.status"
    query = select(events, jobs.c.owner_id, jobs.c.name).join(jobs, jobs.c.id == events.c.job_id).where(*wanted)
    return c.execute(query.order_by(events.c.number).limit(limit)).all()


def _concerns(receiver: Row[Any], event: Row[Any]) -> bool:
    sees = receiver.scope in (None, Scope.ADMIN) or receiver.owner_id == event.owner_id
    return sees and event.number > receiver.after_number and f"job.{event.data['to']}" in receiver.types


def _body(event: Row[Any]) -> str:
    """Fixed here, so that every attempt sends the same bytes."""
    path = f"/v1/jobs/{event.job_id}"
    links = {"self": path, **{name: f"{path}/{name}" for name in ("events", "metrics", "logs", "artifacts")}}
    data = {
        "job_id": event.job_id,
        "name": event.name,
        "status": event.data["to"],
        "from": event.data["from"],
        "reason": event.data["reason"],
        "attempt": event.attempt,
        "event_id": event.id,
        "links": links,
    }
    return _message(f"job.{event.data['to']}", event.at, data)


def _message(type: str, at: datetime, data: dict[str, Any]) -> str:
    timestamp = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"type": type, "timestamp": timestamp, "data": data}, separators=(",", ":"))


def _new(webhook_id: str, job_id: str | None, type: str, body: str, now: datetime) -> dict[str, Any]:
    return {
        "id": f"msg_{str(ULID()).lower()}",
        "webhook_id": webhook_id,
        "job_id": job_id,
        "type": type,
        "body": body,
        "status": DeliveryStatus.PENDING,
        "attempts": 0,
        "created_at": now,
        "due_at": now,
    }


def add_test(c: Connection, webhook: Webhook) -> Delivery:
    """A message that tells nothing, to see whether messages arrive."""
    now = datetime.now(UTC)
    new = _new(webhook.id, None, TEST_TYPE, _message(TEST_TYPE, now, {"webhook_id": webhook.id}), now)
    c.execute(insert(deliveries).values(new))
    return get(c, webhook.id, new["id"])


def get(c: Connection, webhook_id: str, delivery_id: str) -> Delivery:
    """One delivery of a webhook.

    Raises:
        DeliveryNotFound: there is none.
    """
    mine = deliveries.c.id == delivery_id, deliveries.c.webhook_id == webhook_id
    row = c.execute(select(deliveries).where(*mine)).one_or_none()
    if row is None:
        raise DeliveryNotFound(delivery_id)
    return _delivery(row)


def page(
    c: Connection, webhook_id: str, *, limit: int, before: str | None = None, statuses: Collection[DeliveryStatus] = ()
) -> Sequence[Delivery]:
    """The newest deliveries of a webhook, of those with an id below `before` and with one of these statuses."""
    query = select(deliveries).where(deliveries.c.webhook_id == webhook_id)
    if before is not None:
        query = query.where(deliveries.c.id < before)
    if statuses:
        query = query.where(deliveries.c.status.in_(statuses))
    return [_delivery(row) for row in c.execute(query.order_by(deliveries.c.id.desc()).limit(limit))]


def retry(c: Connection, webhook_id: str, delivery_id: str) -> Delivery:
    """Begin a delivery anew, whatever became of it.

    Raises:
        DeliveryNotFound: there is none.
    """
    mine = deliveries.c.id == delivery_id, deliveries.c.webhook_id == webhook_id
    fresh = {"attempts": 0, "status_code": None, "error": None, "finished_at": None}
    values = {"status": DeliveryStatus.PENDING, "due_at": datetime.now(UTC), **fresh}
    c.execute(update(deliveries).where(*mine, deliveries.c.status != DeliveryStatus.PENDING).values(values))
    return get(c, webhook_id, delivery_id)


def due_webhooks(c: Connection, now: datetime) -> list[str]:
    """The webhooks that have something to be told now."""
    query = select(deliveries.c.webhook_id).join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
    return list(c.execute(query.where(deliveries.c.due_at <= now, webhook_store.receives()).distinct()).scalars())


def claim(c: Connection, webhook_id: str, now: datetime) -> Claim | None:
    """Take the delivery of a webhook that is due the longest, for `LEASE`; None when none is."""
    query = select(deliveries, webhooks.c.url, webhooks.c.secret, webhooks.c.old_secret, webhooks.c.old_secret_until)
    query = query.join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
    due = deliveries.c.webhook_id == webhook_id, deliveries.c.due_at <= now, webhook_store.receives()
    query = query.where(*due).order_by(deliveries.c.due_at, deliveries.c.id).limit(1)
    row = c.execute(query.with_for_update(of=deliveries, skip_locked=True)).one_or_none()
    if row is None:
        return None
    attempt = deliveries.c.id == row.id
    c.execute(update(deliveries).where(attempt).values(attempts=row.attempts + 1, due_at=now + LEASE))
    old = row.old_secret if row.old_secret_until is not None and row.old_secret_until > now else None
    return Claim(
        delivery=get(c, webhook_id, row.id),
        url=row.url,
        secrets=(row.secret,) if old is None else (row.secret, old),
    )


def record(c: Connection, attempted: Delivery, outcome: Outcome, now: datetime) -> None:
    """Write down how the attempt of a claim ended; does nothing where the delivery has gone on without it.

    After the last attempt it is given up, and then the webhook is disabled if it has taken nothing meanwhile.
    """
    values: dict[str, Any] = {"status_code": outcome.status_code, "error": outcome.error}
    given_up = outcome.error is not None and (attempted.attempts >= MAX_ATTEMPTS or outcome.gone)
    if outcome.error is None or given_up:
        status = DeliveryStatus.FAILED if given_up else DeliveryStatus.DELIVERED
        values |= {"status": status, "due_at": None, "finished_at": now}
    else:
        delay = DELAYS[attempted.attempts - 1] * random.uniform(1, 1 + JITTER)
        values["due_at"] = now + max(delay, min(outcome.retry_after, DELAYS[-1]))
    mine = (
        deliveries.c.id == attempted.id,
        deliveries.c.attempts == attempted.attempts,
        deliveries.c.due_at == attempted.due_at,
    )
    held = c.execute(update(deliveries).where(*mine).values(values).returning(deliveries.c.id)).one_or_none()
    if held is None:
        return
    if outcome.error is None:
        c.execute(update(webhooks).where(webhooks.c.id == attempted.webhook_id).values(last_delivered_at=now))
    elif given_up:
        _disable_where_dead(c, attempted, outcome)


def _disable_where_dead(c: Connection, attempted: Delivery, outcome: Outcome) -> None:
    if outcome.gone:
        webhook_store.disable(c, attempted.webhook_id, "the receiver answered 410: it wants no more messages")
        return
    delivered_at = webhook_store.get(c, attempted.webhook_id).last_delivered_at
    if delivered_at is None or delivered_at < attempted.created_at:
        reason = f"{attempted.id} failed {attempted.attempts} times, and nothing else was taken since; {outcome.error}"
        webhook_store.disable(c, attempted.webhook_id, reason)


def _delivery(row: Row[Any]) -> Delivery:
    columns = {name: getattr(row, name) for name in Delivery.__dataclass_fields__}
    return Delivery(**{**columns, "status": DeliveryStatus(row.status)})
