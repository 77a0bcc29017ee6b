"""`Idempotency-Key`: a request that creates something may be sent again after its answer was lost.

The answer is stored in the transaction that creates the thing, and given again for the same key and the same request
for 24 hours. Errors are not stored: a request that was refused has created nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from sqlalchemy import Connection

from server.auth import CallerOf
from server.errors import IdempotencyKeyReused
from server.wording import quoted
from worker.store import idempotency

KEPT_HEADERS = ("Location", "ETag")

Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]


@dataclass(frozen=True)
class Idempotent:
    """One request, and the key that its client gave it."""

    owner: str
    key: str | None
    request_digest: str

    def once(self, c: Connection, create: Callable[[], Response]) -> Response:
        """What `create` answers, or what it answered when the request came first.

        Args:
            c: a transaction for writing, in which `create` works.

        Raises:
            IdempotencyKeyReused: the key was given to another request.
        """
        if self.key is None:
            return create()
        kept = idempotency.take(c, owner=self.owner, key=self.key, request_digest=self.request_digest)
        if kept is None:
            response = create()
            headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            body = bytes(response.body).decode()
            status_code = response.status_code
            idempotency.keep(c, owner=self.owner, key=self.key, status_code=status_code, headers=headers, body=body)
            return response
        if kept.request_digest != self.request_digest:
            message = "expected the request that this Idempotency-Key was given first, or a new key"
            raise IdempotencyKeyReused(f"{message}, got another request with {quoted(self.key)}")
        headers = {**kept.headers, "Idempotent-Replayed": "true"}
        return Response(kept.body, kept.status_code, headers, "application/json")


NOT_IDEMPOTENT = Idempotent(owner="", key=None, request_digest="")
"""Any request without a key."""


async def _idempotent(request: Request, caller: CallerOf, key: Key = None) -> Idempotent:
    """The same request is the same method, path, query and bytes of the body."""
    if key is None:
        return NOT_IDEMPOTENT
    target = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    digest = hashlib.sha256(target + await request.body()).hexdigest()
    return Idempotent(owner=caller.owner_id or "", key=key, request_digest=f"sha256:{digest}")


IdempotentRequest = Annotated[Idempotent, Depends(_idempotent)]
"""A route's parameter of this type knows the request's `Idempotency-Key`."""
