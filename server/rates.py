"""How many requests a key may make: a bucket of tokens for each key, refilled steadily."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from server.errors import RateLimited

WINDOW_SECONDS = 60


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class RateLimiter:
    """Lets every key make `limit` requests in a minute, at once or spread. Counts in this process alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, key_id: str, now: float | None = None) -> dict[str, str]:
        """Count a request; returns the headers that tell a client what is left (draft-ietf-httpapi-ratelimit-headers).

        Args:
            now: seconds of a monotonic clock.

        Raises:
            RateLimited: none is left; says when the next one is.
        """
        now = time.monotonic() if now is None else now
        refill = self._limit / WINDOW_SECONDS
        with self._lock:
            bucket = self._buckets.setdefault(key_id, _Bucket(self._limit, now))
            bucket.tokens = min(self._limit, bucket.tokens + (now - bucket.filled_at) * refill)
            bucket.filled_at = now
            allowed = bucket.tokens >= 1
            bucket.tokens -= allowed
            tokens = bucket.tokens
        headers = {
            "RateLimit-Policy": f'"requests";q={self._limit};w={WINDOW_SECONDS}',
            "RateLimit": f'"requests";r={int(tokens)};t={math.ceil((self._limit - tokens) / refill)}',
        }
        if not allowed:
            again = math.ceil((1 - tokens) / refill)
            detail = f"expected at most {self._limit} requests in {WINDOW_SECONDS} s with this key, got more"
            raise RateLimited(detail, headers={**headers, "Retry-After": str(again)})
        return headers
