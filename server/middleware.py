"""What happens to every request before routing: ids, security headers, checks of host and origin, limits of bodies."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BodyTimeout, ContentTooLarge, HostNotAllowed, OriginNotAllowed, ProblemError
from server.prediction_schemas import MAX_BYTES as MAX_IMAGES_BYTES
from server.problems import problem_response
from server.wording import quoted

MAX_BODY_BYTES = 2**20
BODY_SECONDS = 30.0
"""How long a client may take to send a body."""
MAX_PART_BYTES, PART_SECONDS = 2**26, 600.0
"""The same for a part of an upload."""
DISCARD_BYTES = 2**28
"""How much of a body that is too large is read and thrown away, so that the client gets to read the answer."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """Gives every request an id (the client's own, where it is plain), and every response that id and safe headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.update(scope["state"].get("response_headers", {}))
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class HostsAndOrigins:
    """Refuses other hosts (DNS rebinding), and changes asked for by pages of another origin (request forgery).

    Args:
        hosts: names in the `Host` header that mean this server, ports left aside.
        origins: further origins, such as `https://lab.example`, whose pages may ask for changes.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope) if scope["type"] == "http" else None
        app = self.app if error is None else problem_response(scope, error)
        await app(scope, receive, send)

    def _error(self, scope: Scope) -> ProblemError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or re.sub(r":\d{1,5}$", "", host).lower() not in self.hosts:
            expected = ", ".join(sorted(self.hosts))
            return HostNotAllowed(
                f"expected one of {expected} in the Host header (EPOCHD_ALLOWED_HOSTS), got {quoted(host)}"
            )
        origin = headers.get("origin")
        if origin is None or scope["method"] in SAFE_METHODS or origin in self.origins:
            return None
        if urlsplit(origin).netloc.lower() == host.lower():
            return None
        return OriginNotAllowed(f"expected a request from a page of this server, got one from {quoted(origin)}")


class BodyLimit:
    """Answers 413 for bodies of more than `max_bytes`, declared or chunked, and 408 for those slower than `seconds`."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES, seconds: float = BODY_SECONDS) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        max_bytes, seconds = self.max_bytes, self.seconds
        if method == "PATCH" and path.startswith("/v1/uploads/"):
            max_bytes, seconds = MAX_PART_BYTES, PART_SECONDS
        elif method == "POST" and path.startswith("/v1/jobs/") and path.endswith("/predict"):
            max_bytes = MAX_IMAGES_BYTES
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > max_bytes:
            if headers.get("expect", "").lower() != "100-continue":
                await self._discard(receive)
            await problem_response(scope, _too_large(max_bytes, f"{length} bytes"))(scope, receive, send)
            return
        await self.app(scope, self._limited(receive, max_bytes, seconds), send)

    def _limited(self, receive: Receive, max_bytes: int, seconds: float) -> Receive:
        deadline = time.monotonic() + seconds
        num_bytes = 0
        complete = False

        async def limited() -> Message:
            nonlocal num_bytes, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError as error:
                detail = f"expected the whole body within {seconds:g} s, got {num_bytes} bytes"
                raise BodyTimeout(detail, headers={"Connection": "close"}) from error
            num_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if num_bytes > max_bytes:
                if not complete:
                    await self._discard(receive)
                raise _too_large(max_bytes, f"more than {max_bytes} bytes")
            return message

        return limited

    async def _discard(self, receive: Receive) -> None:
        num_bytes = 0
        try:
            async with asyncio.timeout(self.seconds):
                while num_bytes < DISCARD_BYTES:
                    message = await receive()
                    num_bytes += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return


def _too_large(max_bytes: int, got: str) -> ContentTooLarge:
    return ContentTooLarge(f"expected a body of at most {max_bytes} bytes, got {got}", headers={"Connection": "close"})
