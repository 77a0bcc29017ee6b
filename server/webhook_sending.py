"""One attempt to deliver a message, signed by the Standard Webhooks specification 1.0.0.

(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ssl
import time
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

import httpcore

from server.receivers import AddressGuard, ReceiverRefused, ReceiverUrl, receiver_url
from worker.store.deliveries import Claim, Outcome

TIMEOUT_SECONDS: Final = 15.0
"""For everything: resolving, connecting, sending, and the head of the answer."""
CONNECT_SECONDS: Final = 5.0
"""For each address."""
USER_AGENT: Final = f"epochd/{version('epochd')}"


def sign(secret: str, message_id: str, timestamp: int, body: str) -> str:
    """A signature of scheme `v1`: HMAC-SHA256 of `{id}.{timestamp}.{body}`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.{body}".encode(), "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


async def send(claim: Claim, guard: AddressGuard) -> Outcome:
    """Send the message once. Redirects are not followed, and of the answer only the head is read."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return _outcome(await _post(claim, guard))
    except TimeoutError:
        return Outcome(error=f"expected an answer within {TIMEOUT_SECONDS:g} s, got none")
    except ReceiverRefused as error:
        return Outcome(error=str(error))
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        return Outcome(error=f"expected an answer, got {type(error).__name__}: {error}".removesuffix(": "))


async def _post(claim: Claim, guard: AddressGuard) -> httpcore.Response:
    url = receiver_url(claim.url)
    addresses = await guard.addresses(url)
    for address in addresses[:-1]:
        try:
            return await _ask(url, address, claim)
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            continue
    return await _ask(url, addresses[-1], claim)


async def _ask(url: ReceiverUrl, address: str, claim: Claim) -> httpcore.Response:
    """Over a connection for this message alone: of a kept one the certificate may have been that of another name."""
    where = httpcore.URL(scheme=url.scheme, host=address, port=url.port, target=url.target)
    headers = {"Host": url.authority, **_headers(claim)}
    checks = {"sni_hostname": url.host, "timeout": {"connect": CONNECT_SECONDS}}
    trust = _trust() if url.scheme == "https" else None
    async with (
        httpcore.AsyncHTTPConnection(where.origin, ssl_context=trust) as connection,
        connection.stream(
            "POST", where, headers=list(headers.items()), content=claim.delivery.body.encode(), extensions=checks
        ) as response,
    ):
        return response


def _headers(claim: Claim) -> dict[str, str]:
    delivery, timestamp = claim.delivery, int(time.time())
    signatures = [sign(secret, delivery.id, timestamp, delivery.body) for secret in claim.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "Connection": "close",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _outcome(response: httpcore.Response) -> Outcome:
    status_code = response.status
    if 200 <= status_code < 300:
        return Outcome(status_code=status_code)
    hint = "; redirects are not followed: register the URL that it leads to" if 300 <= status_code < 400 else ""
    after = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    return Outcome(
        status_code=status_code,
        error=f"expected a status of 200 to 299, got {status_code}{hint}",
        retry_after=timedelta(seconds=int(after) if after.isdigit() and len(after) <= 6 else 0),
        gone=status_code == HTTPStatus.GONE,
    )


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """The machine's certificate authorities; read when the first message is sent, because that takes a while."""
    return ssl.create_default_context()
