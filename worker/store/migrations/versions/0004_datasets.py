"""Users' datasets: uploads, what was registered from them, and contact sheets that were asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=True),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("received >= 0 AND received <= bytes", name=op.f("ck_uploads_received")),
        sa.CheckConstraint("completed_at IS NULL OR received = bytes", name=op.f("ck_uploads_completed_at")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_uploads_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_sha256"), "uploads", ["sha256"])
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"])
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("upload_sha256", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('validating', 'ready', 'refused')", name=op.f("ck_datasets_status")),
        sa.CheckConstraint("(status = 'ready') = (digest IS NOT NULL)", name=op.f("ck_datasets_digest")),
        sa.CheckConstraint("(status = 'ready') = (content IS NOT NULL)", name=op.f("ck_datasets_content")),
        sa.CheckConstraint("(status = 'validating') = (finished_at IS NULL)", name=op.f("ck_datasets_finished_at")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_status"), "datasets", ["status"])
    op.create_index(op.f("ix_datasets_digest"), "datasets", ["digest"])
    op.create_table(
        "sheets",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("error IS NULL OR finished_at IS NOT NULL", name=op.f("ck_sheets_error")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_sheets_dataset_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sheets")),
    )
    op.create_index(op.f("ix_sheets_finished_at"), "sheets", ["finished_at"])
