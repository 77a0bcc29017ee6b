"""The tables of webhooks and what is delivered to them."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from worker.store.tables import Json, Timestamp, metadata, one_of

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text),
    Column("url", Text, nullable=False),
    Column("types", Json, nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", Timestamp),
    Column("after_number", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("last_delivered_at", Timestamp),
    Column("disabled_at", Timestamp),
    Column("disabled_reason", Text),
    CheckConstraint("(old_secret IS NULL) = (old_secret_until IS NULL)", name="old_secret"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
    Index(None, "owner_id", "id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id"), nullable=False),
    Column("job_id", Text),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("due_at", Timestamp),
    Column("finished_at", Timestamp),
    CheckConstraint(one_of("status", ["pending", "delivered", "failed"]), name="status"),
    CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="due_at"),
    CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="finished_at"),
    Index(None, "webhook_id", "id"),
    Index(None, "due_at"),
    Index(None, "finished_at"),
)

webhook_cursor = Table(
    "webhook_cursor",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="id"),
)
"""One row: the newest number of an event that deliveries were made of."""
