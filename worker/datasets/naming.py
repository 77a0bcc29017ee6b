"""How names of uploaded files stand in messages."""

from __future__ import annotations

import json

SHOWN_CHARACTERS = 120


def quoted(name: str) -> str:
    """In quotes, escaped where it is not plain text, and cut where it is long."""
    shown = name if len(name) <= SHOWN_CHARACTERS else f"{name[: SHOWN_CHARACTERS - 1]}…"
    return json.dumps(shown, ensure_ascii=not shown.isprintable())
