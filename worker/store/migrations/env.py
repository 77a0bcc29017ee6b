"""Alembic's entry: runs on the connection, and inside the transaction, that `Database.migrate` hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from worker.store import dataset_tables, webhook_tables  # noqa: F401  (their tables are in the metadata, too)
from worker.store.tables import Timestamp, metadata


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Migrations name plain types: a later change of our own type must not change an old migration."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Timestamp) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()
