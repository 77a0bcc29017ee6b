"""API keys with their quotas, and whose a job is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_queued", sa.Integer(), nullable=True),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_device_seconds", sa.BigInteger(), nullable=True),
        sa.Column("device_seconds", sa.Float(53), nullable=False),
        sa.CheckConstraint("scope IN ('read', 'submit', 'admin')", name=op.f("ck_api_keys_scope")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_api_keys_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_sha256"), "api_keys", ["sha256"], unique=True)
    op.add_column("jobs", sa.Column("owner_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("reserved_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index(op.f("ix_jobs_owner_id_id"), "jobs", ["owner_id", "id"])
    op.create_index(op.f("ix_jobs_owner_id_status"), "jobs", ["owner_id", "status"])
