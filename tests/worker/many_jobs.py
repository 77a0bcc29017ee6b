"""Many jobs at once, for what must stay fast with them: lists, walks, places in the queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select
from ulid import ULID

from cnn.spec import TrainingSpec
from worker.store import jobs
from worker.store.database import Database
from worker.store.tables import events, job_tags
from worker.store.tables import jobs as table

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_AT_ONCE = 5000


def fill(database: Database, spec: TrainingSpec, number: int, change: Callable[[int], dict[str, Any]]) -> list[str]:
    """Many jobs at once, a minute apart, copies of a new one but for what `change` says of each; their ids."""
    rows = []
    with database.write() as c:
        made = jobs.create(c, spec=spec, name=None)
        model = c.execute(select(table).where(table.c.id == made.id)).one()._asdict()
        c.execute(events.delete())
        c.execute(table.delete())
        for index in range(number):
            at = START + timedelta(minutes=index)
            times = {"created_at": at, "queued_at": at, "updated_at": at}
            rows.append(model | times | {"id": f"job_{str(ULID.from_datetime(at)).lower()}"} | change(index))
        for begin in range(0, number, ROWS_AT_ONCE):
            c.execute(insert(table), rows[begin : begin + ROWS_AT_ONCE])
        tags = [{"job_id": row["id"], "tag": tag} for row in rows for tag in row["tags"]]
        if tags:
            c.execute(insert(job_tags), tags)
    return [row["id"] for row in rows]
