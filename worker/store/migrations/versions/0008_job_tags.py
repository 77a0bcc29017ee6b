"""Tags as rows, and indexes with which any page of jobs is short work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_tags",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_tags_job_id")),
        sa.PrimaryKeyConstraint("job_id", "tag", name=op.f("pk_job_tags")),
        sqlite_with_rowid=False,
    )
    each = "json_each(jobs.tags)" if op.get_bind().dialect.name == "sqlite" else "json_array_elements_text(jobs.tags)"
    op.execute(f"INSERT INTO job_tags (job_id, tag) SELECT DISTINCT jobs.id, each.value FROM jobs, {each} AS each")
    op.create_index(op.f("ix_job_tags_tag_job_id"), "job_tags", ["tag", "job_id"])
    op.drop_index(op.f("ix_jobs_name_id"), "jobs")
    op.create_index(op.f("ix_jobs_name_id_status_owner_id"), "jobs", ["name", "id", "status", "owner_id"])
    op.drop_index(op.f("ix_jobs_owner_id_status"), "jobs")
    op.create_index(op.f("ix_jobs_owner_id_status_id"), "jobs", ["owner_id", "status", "id"])
    succeeded = sa.text("status = 'succeeded'")
    op.create_index(
        "ix_jobs_succeeded",
        "jobs",
        ["device", "threads", "id"],
        sqlite_where=succeeded,
        postgresql_where=succeeded,
    )
