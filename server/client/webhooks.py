"""Webhooks: `client.webhooks.add(url)`, then `test`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from server.client.calls import Call, Listing
from server.client.following import POLL_SECONDS
from server.webhook_schemas import Delivery, DeliveryPage, NewWebhook, Webhook, WebhookPage

if TYPE_CHECKING:
    from server.client.asynchronous import AsyncClient
    from server.client.synchronous import Client


class Webhooks:
    """What a client can do about webhooks."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def add(self, url: str, *, types: Sequence[str] = ()) -> NewWebhook:
        """Have a URL told that jobs have ended, or of these `types`, such as `job.failed`. Keep the answer's secret."""
        return self._client._send(_add(url, types))

    def get(self, webhook_id: str) -> Webhook:
        return self._client._send(_get(webhook_id))

    def list(self) -> Iterator[Webhook]:
        """All webhooks, newest first, page by page."""
        return self._client._items(Listing(WebhookPage, "/v1/webhooks", "cursor", {}))

    def delete(self, webhook_id: str) -> None:
        self._client._send(_delete(webhook_id))

    def enable(self, webhook_id: str) -> Webhook:
        """Deliver again after everything had failed for too long."""
        return self._client._send(_enable(webhook_id))

    def rotate(self, webhook_id: str) -> NewWebhook:
        """Give it a new secret; the old one signs beside it for 24 hours."""
        return self._client._send(_rotate(webhook_id))

    def test(self, webhook_id: str, *, poll_seconds: float = POLL_SECONDS) -> Delivery:
        """Send a message that tells nothing; its delivery, once it was taken or an attempt has failed."""
        delivery = self._client._send(_test(webhook_id))
        while _is_open(delivery):
            time.sleep(poll_seconds)
            delivery = self.delivery(webhook_id, delivery.id)
        return delivery

    def deliveries(self, webhook_id: str, *, statuses: Sequence[str] = ()) -> Iterator[Delivery]:
        """What it was told in the last days, newest first, page by page."""
        return self._client._items(_deliveries(webhook_id, statuses))

    def delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        return self._client._send(_delivery(webhook_id, delivery_id))

    def retry(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a message again that was given up, or taken."""
        return self._client._send(_retry(webhook_id, delivery_id))


class AsyncWebhooks:
    """The methods of `Webhooks`, awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def add(self, url: str, *, types: Sequence[str] = ()) -> NewWebhook:
        """Have a URL told that jobs have ended, or of these `types`, such as `job.failed`. Keep the answer's secret."""
        return await self._client._send(_add(url, types))

    async def get(self, webhook_id: str) -> Webhook:
        return await self._client._send(_get(webhook_id))

    def list(self) -> AsyncIterator[Webhook]:
        """All webhooks, newest first, page by page."""
        return self._client._items(Listing(WebhookPage, "/v1/webhooks", "cursor", {}))

    async def delete(self, webhook_id: str) -> None:
        await self._client._send(_delete(webhook_id))

    async def enable(self, webhook_id: str) -> Webhook:
        """Deliver again after everything had failed for too long."""
        return await self._client._send(_enable(webhook_id))

    async def rotate(self, webhook_id: str) -> NewWebhook:
        """Give it a new secret; the old one signs beside it for 24 hours."""
        return await self._client._send(_rotate(webhook_id))

    async def test(self, webhook_id: str, *, poll_seconds: float = POLL_SECONDS) -> Delivery:
        """Send a message that tells nothing; its delivery, once it was taken or an attempt has failed."""
        delivery = await self._client._send(_test(webhook_id))
        while _is_open(delivery):
            await asyncio.sleep(poll_seconds)
            delivery = await self.delivery(webhook_id, delivery.id)
        return delivery

    def deliveries(self, webhook_id: str, *, statuses: Sequence[str] = ()) -> AsyncIterator[Delivery]:
        """What it was told in the last days, newest first, page by page."""
        return self._client._items(_deliveries(webhook_id, statuses))

    async def delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        return await self._client._send(_delivery(webhook_id, delivery_id))

    async def retry(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a message again that was given up, or taken."""
        return await self._client._send(_retry(webhook_id, delivery_id))


def _is_open(delivery: Delivery) -> bool:
    return delivery.status == "pending" and delivery.error is None


def _path(webhook_id: str, *parts: str) -> str:
    return "/".join(["/v1/webhooks", *(quote(part, safe="") for part in (webhook_id, *parts))])


def _add(url: str, types: Sequence[str]) -> Call[NewWebhook]:
    """Not sent again: nobody would know the secret of the first one."""
    body = {"url": url, "types": types} if types else {"url": url}
    return Call(_read_new, "POST", "/v1/webhooks", body, is_repeatable=False)


def _get(webhook_id: str) -> Call[Webhook]:
    return Call(_read, "GET", _path(webhook_id))


def _delete(webhook_id: str) -> Call[None]:
    return Call(lambda _: None, "DELETE", _path(webhook_id), is_repeatable=False)


def _enable(webhook_id: str) -> Call[Webhook]:
    return Call(_read, "POST", _path(webhook_id, "enable"))


def _rotate(webhook_id: str) -> Call[NewWebhook]:
    """Not sent again: the second new secret would leave no time to the one that the receiver knows."""
    path = _path(webhook_id, "rotate")
    return Call(_read_new, "POST", path, is_repeatable=False)


def _test(webhook_id: str) -> Call[Delivery]:
    return Call(_read_delivery, "POST", _path(webhook_id, "test"))


def _deliveries(webhook_id: str, statuses: Sequence[str]) -> Listing[Delivery]:
    params = {"status": ",".join(statuses)} if statuses else {}
    return Listing(DeliveryPage, _path(webhook_id, "deliveries"), "cursor", params)


def _delivery(webhook_id: str, delivery_id: str) -> Call[Delivery]:
    return Call(_read_delivery, "GET", _path(webhook_id, "deliveries", delivery_id))


def _retry(webhook_id: str, delivery_id: str) -> Call[Delivery]:
    return Call(_read_delivery, "POST", _path(webhook_id, "deliveries", delivery_id, "retry"))


def _read(answer: httpx.Response) -> Webhook:
    return Webhook.model_validate_json(answer.content)


def _read_new(answer: httpx.Response) -> NewWebhook:
    return NewWebhook.model_validate_json(answer.content)


def _read_delivery(answer: httpx.Response) -> Delivery:
    return Delivery.model_validate_json(answer.content)
