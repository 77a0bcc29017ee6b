"""Warnings about a spec, as the linter gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from pydantic import BaseModel

Operation = TypedDict("Operation", {"op": str, "path": str, "from": str, "value": Any}, total=False)
"""One step of a JSON Patch (RFC 6902)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a spec asks for and its author will hardly mean.

    `pointer` leads to it in the spec. `fix` mends it when applied to the spec, as it was sent or as it was resolved;
    it is empty where more than one repair would do.
    """

    code: str
    pointer: str
    message: str
    source: str
    fix: Sequence[Operation] = ()


def put(spec: BaseModel, parent: str, field: str, value: Any) -> list[Operation]:
    """Set a field of a part of the spec, whether or not that part was written out when the spec was sent."""
    if parent in spec.model_fields_set:
        return [{"op": "add", "path": f"/{parent}/{field}", "value": value}]
    return [{"op": "add", "path": f"/{parent}", "value": {field: value}}]


def remove(pointer: str) -> list[Operation]:
    """Take an element of a list away."""
    return [{"op": "remove", "path": pointer}]
