"""The tables of uploads, registered datasets and their contact sheets."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from worker.store.tables import Json, Timestamp, metadata, one_of

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text),
    Column("filename", Text),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("completed_at", Timestamp),
    CheckConstraint("received >= 0 AND received <= bytes", name="received"),
    CheckConstraint("completed_at IS NULL OR received = bytes", name="completed_at"),
    CheckConstraint("length(sha256) = 64", name="sha256"),
    Index(None, "sha256"),
    Index(None, "expires_at"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text),
    Column("name", Text, nullable=False),
    Column("format", Json, nullable=False),
    Column("upload_id", Text, nullable=False),
    Column("upload_sha256", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("digest", Text),
    Column("content", Json),
    Column("bytes", BigInteger),
    Column("report", Json),
    Column("created_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    CheckConstraint(one_of("status", ["validating", "ready", "refused"]), name="status"),
    CheckConstraint("(status = 'ready') = (digest IS NOT NULL)", name="digest"),
    CheckConstraint("(status = 'ready') = (content IS NOT NULL)", name="content"),
    CheckConstraint("(status = 'validating') = (finished_at IS NULL)", name="finished_at"),
    Index(None, "status"),
    Index(None, "digest"),
)

sheets = Table(
    "sheets",
    metadata,
    Column("key", Text, primary_key=True),
    Column("dataset_id", Text, ForeignKey("datasets.id"), nullable=False),
    Column("spec", Json, nullable=False),
    Column("error", Text),
    Column("requested_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    CheckConstraint("error IS NULL OR finished_at IS NOT NULL", name="error"),
    Index(None, "finished_at"),
)
