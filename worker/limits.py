"""Limits of processes that read what nobody trusts."""

from __future__ import annotations

import resource
from collections.abc import Mapping


def set_limits(limits: Mapping[int, int]) -> None:
    """Lower limits of this process for good, by their `resource.RLIMIT_…`; one that is lower already stays."""
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (allowed, allowed))
