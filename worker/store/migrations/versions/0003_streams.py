"""What streams of all jobs, repeated requests and duplicate jobs need to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("headers", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys", ["expires_at"])
    numbers = op.create_table(
        "event_numbers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_event_numbers_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_numbers")),
    )
    op.bulk_insert(numbers, [{"id": 1, "last": 0}])
    op.add_column("events", sa.Column("number", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_events_number"), "events", ["number"], unique=True)
    unnumbered = sa.text("number IS NULL")
    op.create_index(
        "ix_events_unnumbered", "events", ["job_id", "id"], sqlite_where=unnumbered, postgresql_where=unnumbered
    )
    op.create_index(op.f("ix_jobs_spec_digest"), "jobs", ["spec_digest"])
    op.create_index(op.f("ix_jobs_status_id"), "jobs", ["status", "id"])
    if op.get_bind().dialect.name == "sqlite":
        # SQLite's planner is told that many jobs share a status: else it would read the whole queue by this index, and
        # sort it, where the index of the queue has it in order. (https://sqlite.org/lang_analyze.html, "sqlite_stat1")
        op.execute("ANALYZE sqlite_schema")
        op.execute("INSERT INTO sqlite_stat1 VALUES ('jobs', 'ix_jobs_status_id', '100000 20000 1')")
    op.create_index(op.f("ix_jobs_name_id"), "jobs", ["name", "id"])
