"""The tables of jobs, keys and workers, and the two column types that SQLite and PostgreSQL do not share."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

from worker.jobs import Intent, JobStatus, OnDomainChange, PauseReason

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Timestamp(TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps it without the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Json = JSON(none_as_null=True)


def one_of(column: str, values: list[str]) -> str:
    """SQL condition of a check that a column has one of these values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({listed})"


jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text),
    Column("name", Text),
    Column("tags", Json, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("intent", Text),
    Column("cancel_now", Boolean, nullable=False),
    Column("phase", Text),
    Column("spec", Json, nullable=False),
    Column("spec_digest", Text, nullable=False),
    Column("dataset_id", Text, nullable=False),
    Column("dataset_digest", Text),
    Column("wanted_device", Text, nullable=False),
    Column("monitor", Text),
    Column("epoch", Integer),
    Column("epochs", Integer),
    Column("step", BigInteger),
    Column("num_steps", BigInteger),
    Column("eta_at", Timestamp),
    Column("progress_at", Timestamp),
    Column("latest_metrics", Json, nullable=False),
    Column("best", Json),
    Column("result", Json),
    Column("error", Json),
    Column("attempt", Integer, nullable=False),
    Column("first_attempt", Integer, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("heartbeat", BigInteger, nullable=False),
    Column("fruitless_attempts", Integer, nullable=False),
    Column("checkpoint_step", BigInteger, nullable=False),
    Column("worker_id", Text),
    Column("device", Text),
    Column("threads", Integer),
    Column("determinism", Json),
    Column("domain", Text),
    Column("on_domain_change", Text, nullable=False),
    Column("pause_reason", Text),
    Column("max_runtime_seconds", Integer),
    Column("runtime_seconds", Float(53), nullable=False),
    Column("reserved_bytes", BigInteger, nullable=False),
    Column("not_before", Timestamp),
    Column("last_event_id", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("queued_at", Timestamp, nullable=False),
    Column("started_at", Timestamp),
    Column("finished_at", Timestamp),
    Column("updated_at", Timestamp, nullable=False),
    CheckConstraint(one_of("status", list(JobStatus)), name="status"),
    CheckConstraint(f"intent IS NULL OR ({one_of('intent', list(Intent))} AND status = 'running')", name="intent"),
    CheckConstraint("(status = 'running') = (phase IS NOT NULL)", name="phase"),
    CheckConstraint("(status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished_at"),
    CheckConstraint("(status = 'succeeded') = (result IS NOT NULL)", name="result"),
    CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="error"),
    CheckConstraint(f"pause_reason IS NULL OR {one_of('pause_reason', list(PauseReason))}", name="pause_reason"),
    CheckConstraint(one_of("on_domain_change", list(OnDomainChange)), name="on_domain_change"),
    CheckConstraint("status <> 'running' OR (worker_id IS NOT NULL AND attempt > 0 AND token > 0)", name="running"),
    Index(None, "status", "id"),
    Index(None, "name", "id", "status", "owner_id"),  # the last two are no order: see the index of the queue
    Index(None, "spec_digest"),
    Index(None, "owner_id", "id"),
    Index(None, "owner_id", "status", "id"),
)

_QUEUED = text("status = 'queued'")

Index(
    "ix_jobs_queue",
    jobs.c.priority.desc(),
    jobs.c.created_at,
    jobs.c.id,
    jobs.c.wanted_device,  # this and the next are no order: jobs that do not fit are passed over within the index
    jobs.c.domain,
    sqlite_where=_QUEUED,
    postgresql_where=_QUEUED,
)

_SUCCEEDED = text("status = 'succeeded'")

Index(
    "ix_jobs_succeeded",
    jobs.c.device,
    jobs.c.threads,
    jobs.c.id,
    sqlite_where=_SUCCEEDED,
    postgresql_where=_SUCCEEDED,
)

job_tags = Table(
    "job_tags",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("tag", Text, nullable=False),
    PrimaryKeyConstraint("job_id", "tag"),
    Index(None, "tag", "job_id"),
    sqlite_with_rowid=False,
)
"""What `jobs.tags` lists, once more, to find jobs by."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Column("revoked_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("max_queued", Integer),
    Column("max_running", Integer),
    Column("max_stored_bytes", BigInteger),
    Column("max_device_seconds", BigInteger),
    Column("device_seconds", Float(53), nullable=False),
    CheckConstraint(one_of("scope", ["read", "submit", "admin"]), name="scope"),
    CheckConstraint("length(sha256) = 64", name="sha256"),
    Index(None, "sha256", unique=True),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("first_step", BigInteger, nullable=False),
    Column("last_step", BigInteger),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", Text),
    PrimaryKeyConstraint("job_id", "number"),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint("(ended_at IS NULL) = (reason IS NULL)", name="ended"),
)

_UNNUMBERED = text("number IS NULL")

events = Table(
    "events",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("data", Json, nullable=False),
    Column("number", BigInteger),
    PrimaryKeyConstraint("job_id", "id"),
    CheckConstraint("id > 0", name="id"),
    Index(None, "number", unique=True),
    Index("ix_events_unnumbered", "job_id", "id", sqlite_where=_UNNUMBERED, postgresql_where=_UNNUMBERED),
)

event_numbers = Table(
    "event_numbers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="id"),
)
"""One row: the newest number that an event has got."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("status_code", Integer, nullable=False),
    Column("headers", Json, nullable=False),
    Column("body", Text, nullable=False),
    Column("expires_at", Timestamp, nullable=False, index=True),
    PrimaryKeyConstraint("owner", "key"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("value", Float(53)),
    Column("timing", Boolean, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("job_id", "key", "step"),
    CheckConstraint("step >= 0", name="step"),
    Index(None, "job_id", "step", "key"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("job_id", "name"),
    ForeignKeyConstraint(["job_id", "attempt"], ["attempts.job_id", "attempts.number"]),
    CheckConstraint("bytes >= 0", name="bytes"),
    CheckConstraint("length(sha256) = 64", name="sha256"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("heartbeat", BigInteger, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp, nullable=False),
    Column("cpu_domain", Text),
    Column("cuda_domain", Text),
    Column("gpus_per_slot", Integer, nullable=False, server_default="1"),
    CheckConstraint(one_of("status", ["active", "draining", "stopped"]), name="status"),
)
