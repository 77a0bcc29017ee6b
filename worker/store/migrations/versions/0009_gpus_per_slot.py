"""How many GPUs each of a worker's trainers sees."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("gpus_per_slot", sa.Integer(), nullable=False, server_default="1"))
