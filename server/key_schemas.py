"""What the API answers about keys."""

from __future__ import annotations

from datetime import datetime

from server.schemas import Answer, Page


class KeyLimits(Answer):
    """Null is no limit."""

    max_queued: int | None
    """Jobs that wait: queued or paused."""
    max_running: int | None
    """Jobs that are trained at once; others wait."""
    max_stored_bytes: int | None
    """Artifacts, and what those of jobs that have not ended are expected to need."""
    max_device_seconds: int | None
    """Time of all attempts, and what jobs that have not ended may still take."""


class ApiKey(Answer):
    """A key, without its secret."""

    id: str
    name: str
    scope: str
    """`read`, `submit` or `admin`."""
    active: bool
    """Whether it is neither revoked nor expired."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """Exact to a minute."""
    limits: KeyLimits


class KeyUsage(Answer):
    """What a key takes now, with what jobs that have not ended have reserved."""

    queued: int
    """Jobs that wait: queued or paused."""
    running: int
    stored_bytes: int
    device_seconds: float


class UsedApiKey(ApiKey):
    """A key with what it takes."""

    usage: KeyUsage


class NewApiKey(ApiKey):
    """A key with its secret, which is shown this once."""

    secret: str


class ApiKeyPage(Page[ApiKey]):
    """Keys, newest first."""
