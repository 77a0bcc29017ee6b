"""Where webhooks may be sent: to the public internet, and into networks that the operator allows.

Whoever may register a webhook makes this server send requests, which must not reach what only this server can reach:
itself, its neighbours, a cloud's metadata. So every attempt resolves the name, checks all its addresses, and connects
to one of those: that the name may mean something else a moment later (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from server.wording import quoted
from worker.settings import Network

URL_PATTERN: Final = r"^https?://[\x21-\x7e]+$"
PORTS: Final = {"http": 80, "https": 443}
FIRST_FREE_PORT: Final = 1024
RESOLVE_SECONDS: Final = 5.0
EXAMPLE: Final = "https://example.com/hooks"
_HOST: Final = re.compile("[a-z0-9._-]+|[0-9a-f:.]+")
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")
_6TO4: Final = IPv6Network("2002::/16")
"""Holds IPv4 addresses, private ones too."""


class ReceiverRefused(Exception):
    """Nothing may be sent to a URL, or nothing can; the message says why."""


@dataclass(frozen=True)
class ReceiverUrl:
    """A URL in the parts that are sent."""

    scheme: str
    authority: str
    """Host and port as the URL has them, for the header `Host`."""
    host: str
    port: int
    target: str
    """Path and query."""


def receiver_url(text: str) -> ReceiverUrl:
    """The URL of a receiver.

    Raises:
        ReceiverRefused: it is none.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ReceiverRefused(f"expected a URL such as {EXAMPLE}, got {quoted(text)}: {error}") from error
    if not re.fullmatch(URL_PATTERN, text) or not _HOST.fullmatch(parts.hostname or ""):
        raise ReceiverRefused(
            f"expected a URL in ASCII with https:// or http:// and a host, such as {EXAMPLE}, got {quoted(text)}"
        )
    if "@" in parts.netloc or "#" in text:
        raise ReceiverRefused(f"expected a URL without user name, password and fragment, got {quoted(text)}")
    if port is not None and port not in PORTS.values() and port < FIRST_FREE_PORT:
        raise ReceiverRefused(f"expected port 80, 443 or one of {FIRST_FREE_PORT} to 65535, got {port}")
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    port = PORTS[parts.scheme] if port is None else port
    return ReceiverUrl(parts.scheme, parts.netloc, str(parts.hostname), port, target)


@dataclass(frozen=True)
class AddressGuard:
    """Resolves names, and lets only those pass that may be sent to.

    Args:
        allowed: networks that need not be public.
    """

    allowed: Sequence[Network]

    async def addresses(self, url: ReceiverUrl) -> list[str]:
        """The IP addresses of the URL's host, in the order in which to try them.

        Raises:
            ReceiverRefused: the host has no address, or one that is neither public nor in an allowed network, or the
                name is not resolved within `RESOLVE_SECONDS`.
        """
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await asyncio.to_thread(socket.getaddrinfo, url.host, url.port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            expected = f"a host that can be resolved within {RESOLVE_SECONDS:g} s"
            raise ReceiverRefused(f"expected {expected}, got {quoted(url.host)}") from error
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no name can look like that"
            raise ReceiverRefused(f"expected a host that can be resolved, got {quoted(url.host)}: {reason}") from error
        resolved = [_plain(str(place[0])) for *_, place in found]
        for address in resolved:
            if not _is_public(address) and not any(address in network for network in self.allowed):
                expected = "a host on the public internet or in a network of EPOCHD_WEBHOOK_ALLOW"
                raise ReceiverRefused(f"expected {expected}, got {quoted(url.host)} at {address}")
        return list(dict.fromkeys(map(str, resolved)))


def _plain(text: str) -> IPv4Address | IPv6Address:
    """An IPv4 address that is written as one of IPv6 (`::ffff:127.0.0.1`) reaches the same machine."""
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_IPV6 or address in _6TO4):
        return False  # everything else embeds IPv4 addresses, is local, or is not assigned
    return address.is_global and not address.is_multicast
