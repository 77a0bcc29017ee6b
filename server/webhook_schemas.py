"""What the API answers about webhooks."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from server.schemas import Answer, Page


class Webhook(Answer):
    """A webhook, without its secret."""

    id: str
    url: str
    types: tuple[str, ...]
    """What it is told: `job.` and the status that a job has come to."""
    enabled: bool
    """Whether anything is delivered; not, after everything failed for more than a day, until it is enabled again."""
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime
    last_delivered_at: datetime | None
    """When a message was last taken."""


class NewWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str
    """Signs every message (Standard Webhooks, HMAC-SHA256): `whsec_` and the key in base64."""


class WebhookPage(Page[Webhook]):
    """Webhooks, newest first."""


class Message(Answer):
    """The body of the request that a receiver gets."""

    type: str
    """`job.` and a status, or `webhook.test`."""
    timestamp: datetime
    """When it happened."""
    data: dict[str, JsonValue]
    """Of a job: `job_id`, `name`, `status`, `from`, `reason`, `attempt`, `event_id`, `links`."""


class Delivery(Answer):
    """A message to a webhook, and how far it got. It can be seen for seven days after its end."""

    id: str
    """Of the message: the header `webhook-id`, the same in every attempt."""
    webhook_id: str
    job_id: str | None
    type: str
    status: str
    """`pending`, `delivered`, or `failed` after the last attempt."""
    attempts: int
    """Begun so far."""
    status_code: int | None
    """Of the receiver's newest answer."""
    error: str | None
    """Why the newest attempt failed."""
    created_at: datetime
    due_at: datetime | None
    """When it is attempted next."""
    finished_at: datetime | None
    message: Message


class DeliveryPage(Page[Delivery]):
    """Deliveries, newest first."""
