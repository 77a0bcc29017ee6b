"""Limits, pauses that end by themselves, determinism domains, and the index that claims walk along."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("domain", sa.Text(), nullable=True))
    # By hand, because SQLite takes a condition only together with its column.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN on_domain_change TEXT NOT NULL DEFAULT 'wait' "
        "CONSTRAINT ck_jobs_on_domain_change CHECK (on_domain_change IN ('wait', 'continue'))"
    )
    op.execute(
        "ALTER TABLE jobs ADD COLUMN pause_reason TEXT "
        "CONSTRAINT ck_jobs_pause_reason CHECK (pause_reason IS NULL OR pause_reason IN ('user', 'disk_full'))"
    )
    op.execute("UPDATE jobs SET pause_reason = 'user' WHERE status = 'paused'")
    op.add_column("jobs", sa.Column("max_runtime_seconds", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("runtime_seconds", sa.Float(53), nullable=False, server_default="0"))
    op.add_column("workers", sa.Column("cpu_domain", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("cuda_domain", sa.Text(), nullable=True))
    op.drop_index(op.f("ix_jobs_status_priority_created_at_id"), "jobs")
    queued = sa.text("status = 'queued'")
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        [sa.text("priority DESC"), "created_at", "id", "wanted_device", "domain"],
        sqlite_where=queued,
        postgresql_where=queued,
    )
