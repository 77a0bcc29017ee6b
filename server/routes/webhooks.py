"""Webhooks: URLs that are told when jobs come to a status."""

from __future__ import annotations

import json
import re
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field, JsonValue
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from cnn.base import Items, Spec
from server import webhook_schemas as schemas
from server.auth import Caller, CallerOf
from server.bodies import JsonRoute
from server.errors import DeliveryNotFound, InvalidRequest, QuotaUsedUp, WebhookDisabled, WebhookNotFound
from server.openapi import problems
from server.queries import Limit, QueryParameters, Several
from server.receivers import URL_PATTERN, AddressGuard, ReceiverRefused, receiver_url
from server.services import ServicesOf
from server.wording import quoted
from worker.settings import parse_networks
from worker.store import deliveries, webhooks
from worker.store.database import Database
from worker.store.deliveries import DeliveryStatus
from worker.store.webhooks import MAX_WEBHOOKS, EventType, TooManyWebhooks, Webhook

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=JsonRoute)

WEBHOOK_ID = re.compile(r"wh_[0-9a-z]{26}")
DELIVERY_ID = re.compile(r"msg_[0-9a-z]{26}")
ENDS = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED)


class WebhookCreate(Spec):
    """Where to send what."""

    url: Annotated[str, Field(max_length=2000, pattern=URL_PATTERN)]
    """Gets a POST for each message, and answers with 200 to 299; on the public internet, or in a network that the
    operator allows (`EPOCHD_WEBHOOK_ALLOW`)."""
    types: Annotated[Items[Annotated[EventType, Field(strict=False)]], Field(min_length=1, max_length=20)] = ENDS
    """What to tell; without it, that jobs have ended."""


class WebhooksQuery(QueryParameters):
    cursor: Annotated[str, Field(pattern=f"^{WEBHOOK_ID.pattern}$")] | None = None
    """`next_cursor` of the page before."""
    limit: Limit = 50


class DeliveriesQuery(QueryParameters):
    status: Several[DeliveryStatus] = ()
    """Only deliveries of these statuses, separated by commas."""
    cursor: Annotated[str, Field(pattern=f"^{DELIVERY_ID.pattern}$")] | None = None
    """`next_cursor` of the page before."""
    limit: Limit = 50


@router.post("", status_code=201, responses=problems(400, 408, 413, 415, 422, 503))
async def create_webhook(body: WebhookCreate, services: ServicesOf, caller: CallerOf) -> schemas.NewWebhook:
    """Tell a URL when your jobs come to a status; an administrator's is told of all jobs.

    Its `secret` is in this answer and nowhere else. Messages are signed by the Standard Webhooks specification. One
    that is not taken is sent again for more than a day, less and less often; the same one may arrive twice, with one
    `webhook-id`.
    """
    guard = AddressGuard(parse_networks(services.settings.webhook_allow))
    try:
        await guard.addresses(receiver_url(body.url))
    except ReceiverRefused as error:
        raise InvalidRequest(
            f"/url: {error}",
            errors=[{"pointer": "/url", "code": "receiver_refused", "message": str(error), "got": body.url[:100]}],
        ) from error
    return await run_in_threadpool(_create, services.database, body, caller.owner_id)


def _create(database: Database, body: WebhookCreate, owner_id: str | None) -> schemas.NewWebhook:
    types = tuple(dict.fromkeys(body.types))
    try:
        with database.write() as connection:
            webhook, secret = webhooks.create(connection, owner_id=owner_id, url=body.url, types=types)
    except TooManyWebhooks:
        detail = f"expected at most {MAX_WEBHOOKS} webhooks with this key, got one more; delete one first"
        room: dict[str, JsonValue] = {"quota": "webhooks", "limit": MAX_WEBHOOKS, "used": MAX_WEBHOOKS}
        raise QuotaUsedUp(detail, members=room) from None
    return _with_secret(webhook, secret)


@router.get("", responses=problems(422, 503))
def list_webhooks(
    query: Annotated[WebhooksQuery, Query()], services: ServicesOf, caller: CallerOf
) -> schemas.WebhookPage:
    """Webhooks, newest first, without their secrets."""
    with services.database.read() as connection:
        found = webhooks.page(connection, limit=query.limit + 1, before=query.cursor, owner_id=caller.only)
    page, has_more = found[: query.limit], len(found) > query.limit
    data = tuple(map(schemas.Webhook.model_validate, page))
    return schemas.WebhookPage(data=data, next_cursor=page[-1].id if has_more else None, has_more=has_more)


@router.get("/{webhook_id}", responses=problems(404, 503))
def get_webhook(webhook_id: str, services: ServicesOf, caller: CallerOf) -> schemas.Webhook:
    """One webhook, without its secret."""
    with services.database.read() as connection:
        return schemas.Webhook.model_validate(find_webhook(connection, webhook_id, caller))


@router.delete("/{webhook_id}", status_code=204, responses=problems(404, 503))
def delete_webhook(webhook_id: str, services: ServicesOf, caller: CallerOf) -> None:
    """Delete a webhook with its deliveries; what is being sent may still arrive."""
    with services.database.write() as connection:
        find_webhook(connection, webhook_id, caller)
        webhooks.remove(connection, webhook_id)


@router.post("/{webhook_id}/enable", responses=problems(404, 503))
def enable_webhook(webhook_id: str, services: ServicesOf, caller: CallerOf) -> schemas.Webhook:
    """Deliver again: what is pending, and what happens from now on. Repeating it is harmless."""
    with services.database.write() as connection:
        find_webhook(connection, webhook_id, caller)
        return schemas.Webhook.model_validate(webhooks.enable(connection, webhook_id))


@router.post("/{webhook_id}/rotate", responses=problems(404, 503))
def rotate_webhook(webhook_id: str, services: ServicesOf, caller: CallerOf) -> schemas.NewWebhook:
    """Give it a new secret. For 24 hours messages carry a signature by the old one, too."""
    with services.database.write() as connection:
        find_webhook(connection, webhook_id, caller)
        return _with_secret(*webhooks.rotate(connection, webhook_id))


@router.post("/{webhook_id}/test", status_code=202, responses=problems(404, 409, 503))
def test_webhook(webhook_id: str, services: ServicesOf, caller: CallerOf) -> schemas.Delivery:
    """Send a message of type `webhook.test`; the answer is its delivery, which says later what became of it."""
    with services.database.write() as connection:
        webhook = find_webhook(connection, webhook_id, caller)
        if not webhook.enabled:
            detail = (
                f"expected an enabled webhook, got one that was disabled ({webhook.disabled_reason}); enable it first"
            )
            raise WebhookDisabled(detail)
        return _represent(deliveries.add_test(connection, webhook))


@router.get("/{webhook_id}/deliveries", responses=problems(404, 422, 503))
def list_deliveries(
    webhook_id: str, query: Annotated[DeliveriesQuery, Query()], services: ServicesOf, caller: CallerOf
) -> schemas.DeliveryPage:
    """What a webhook was told, or is to be told, newest first."""
    with services.database.read() as connection:
        find_webhook(connection, webhook_id, caller)
        found = deliveries.page(
            connection, webhook_id, limit=query.limit + 1, before=query.cursor, statuses=query.status
        )
    page, has_more = found[: query.limit], len(found) > query.limit
    data = tuple(map(_represent, page))
    return schemas.DeliveryPage(data=data, next_cursor=page[-1].id if has_more else None, has_more=has_more)


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=problems(404, 503))
def get_delivery(webhook_id: str, delivery_id: str, services: ServicesOf, caller: CallerOf) -> schemas.Delivery:
    """One message, and what became of it."""
    with services.database.read() as connection:
        find_webhook(connection, webhook_id, caller)
        try:
            return _represent(deliveries.get(connection, webhook_id, delivery_id))
        except deliveries.DeliveryNotFound:
            raise _no_delivery(delivery_id) from None


@router.post("/{webhook_id}/deliveries/{delivery_id}/retry", status_code=202, responses=problems(404, 503))
def retry_delivery(webhook_id: str, delivery_id: str, services: ServicesOf, caller: CallerOf) -> schemas.Delivery:
    """Send a message again that was given up, or taken; one that is pending stays so."""
    with services.database.write() as connection:
        find_webhook(connection, webhook_id, caller)
        try:
            return _represent(deliveries.retry(connection, webhook_id, delivery_id))
        except deliveries.DeliveryNotFound:
            raise _no_delivery(delivery_id) from None


def find_webhook(connection: Connection, webhook_id: str, caller: Caller) -> Webhook:
    """The webhook of this id, if it exists for the caller.

    Raises:
        WebhookNotFound: there is none.
    """
    try:
        webhook = webhooks.get(connection, webhook_id) if WEBHOOK_ID.fullmatch(webhook_id) else None
    except webhooks.WebhookNotFound:
        webhook = None
    if webhook is None or not caller.sees(webhook.owner_id):
        raise WebhookNotFound(f"expected the id of a webhook, got {quoted(webhook_id)}")
    return webhook


def _no_delivery(delivery_id: str) -> DeliveryNotFound:
    return DeliveryNotFound(f"expected the id of a delivery of this webhook, got {quoted(delivery_id)}")


def _with_secret(webhook: Webhook, secret: str) -> schemas.NewWebhook:
    return schemas.NewWebhook.model_validate({**vars(webhook), "enabled": webhook.enabled, "secret": secret})


def _represent(delivery: deliveries.Delivery) -> schemas.Delivery:
    return schemas.Delivery.model_validate({**vars(delivery), "message": json.loads(delivery.body)})
