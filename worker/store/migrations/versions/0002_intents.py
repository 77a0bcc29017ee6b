"""What cancelling at once and retrying from scratch need to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("cancel_now", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("first_attempt", sa.Integer(), nullable=False, server_default="1"))
