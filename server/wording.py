"""How values of a request stand in error messages."""

from __future__ import annotations

import json
import math

from pydantic import JsonValue

GOT_CHARACTERS = 100


def escape(part: str | int) -> str:
    """One reference token of a JSON Pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def shorten(value: object) -> JsonValue:
    """What came, small enough to be sent back: numbers as they are, text cut, lists and objects as cut JSON."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else _opening(value)
    text = text[: GOT_CHARACTERS + 1].encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= GOT_CHARACTERS else text[: GOT_CHARACTERS - 1] + "…"


def quoted(value: object) -> str:
    """What came, as it stands in a message: JSON, cut."""
    shortened = shorten(value)
    return str(shortened) if isinstance(value, dict | list) else json.dumps(shortened, ensure_ascii=False)


def _opening(value: object) -> str:
    """The start of the value's JSON: a body of a megabyte is not written out to be cut."""
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
        text += part
        if len(text) > GOT_CHARACTERS:
            break
    return text
