"""The seed of every random number as a function of where it is used."""

from __future__ import annotations

import hashlib
import json


def derive_seed(seed: int, purpose: str, *position: int) -> int:
    """63 bits that no other (seed, purpose, position) shares, but for chance."""
    key = json.dumps([seed, purpose, *position]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
