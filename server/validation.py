"""Turns pydantic's errors into error items: where in the sent JSON, what was expected, what came, and how to mend it.

Pydantic names a place by the path that it took, tags of unions and labels of alternatives included:
`("spec", "optimizer", "adamw", "lr")`. A client wants a JSON Pointer into what it sent: `/spec/optimizer/lr`. So the
path is walked through what was sent and through the JSON Schema of the body at the same time; the schema also knows
what was allowed there, in words that cover all the alternatives.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.places import MISSING, Place, Schema, Walk, one_of
from server.schemas import ErrorItem
from server.wording import escape, quoted, shorten

MAX_ITEMS = 50


def error_items(errors: Iterable[Mapping[str, Any]], body: object, schema: Schema) -> list[ErrorItem]:
    """One item for each place that is wrong, at most `MAX_ITEMS`; failed alternatives of one place become one item."""
    items: dict[str, ErrorItem] = {}
    for error in errors:
        source, *path = error["loc"]
        item = _body_item(error, path, body, schema) if source == "body" else _parameter_item(error, source, path)
        key = f"{item['pointer']} {item.get('parameter')}"
        if key not in items or (_is_mismatch(items[key]) and not _is_mismatch(item)):
            items[key] = item
        if len(items) == MAX_ITEMS:
            break
    moved = {patch["path"] for item in items.values() for patch in item.get("fix", ())}
    return [item for item in items.values() if item["code"] != "missing_field" or item["pointer"] not in moved]


_MISMATCHES = ("_type", "_parsing", "literal_error", "none_required", "is_instance_of")


def _is_mismatch(item: ErrorItem) -> bool:
    """Whether the item only says that one alternative was not meant: an error deeper in another one says more."""
    return item["code"].endswith(_MISMATCHES)


def _body_item(error: Mapping[str, Any], path: Sequence[str | int], body: object, schema: Schema) -> ErrorItem:
    walk = Walk(body, schema)
    place = walk.place(path)
    match error["type"]:
        case "extra_forbidden":
            return _unknown_field(walk, place)
        case "union_tag_invalid" | "union_tag_not_found":
            return _wrong_type(walk, place)
        case "missing":
            what = f"expected {walk.expected(place.schema) or 'a value'}" if place.pointer else "expected a JSON body"
            return {"pointer": place.pointer, "code": "missing_field", "message": f"{what}, got nothing"}
    context = error.get("ctx") or {}
    if "pointer" in context:
        return _relation(error, context, place)
    item: ErrorItem = {"pointer": place.pointer, "code": error["type"], "message": ""}
    expected = walk.expected(place.schema)
    item["message"] = f"expected {expected}, got {quoted(place.sent)}" if expected else _plain(error)
    allowed = [value for option in walk.options(place.schema) for value in option.get("enum", ())]
    if allowed:
        item["allowed"] = allowed
    item["got"] = shorten(place.sent)
    return item


def _relation(error: Mapping[str, Any], context: Mapping[str, Any], place: Place) -> ErrorItem:
    """An error of a validator that saw several parts: its pointer is relative to the object that it saw."""
    item: ErrorItem = {
        "pointer": place.pointer + context["pointer"],
        "code": error["type"],
        "message": error["msg"],
    }
    if "allowed" in context:
        item["allowed"] = [shorten(value) for value in context["allowed"]]
    if "got" in context:
        item["got"] = shorten(context["got"])
    if context.get("fix"):
        item["fix"] = [{**operation, "path": place.pointer + operation["path"]} for operation in context["fix"]]
    return item


def _unknown_field(walk: Walk, place: Place) -> ErrorItem:
    name = place.pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
    allowed = walk.fields(place.parent)
    expected = f"one of the fields {', '.join(allowed)}" if allowed else "no fields"
    item: ErrorItem = {
        "pointer": place.pointer,
        "code": "unknown_field",
        "message": f"expected {expected}, got {quoted(name)}",
        "allowed": list(allowed),
        "got": shorten(name),
    }
    near = difflib.get_close_matches(name, allowed, n=1)
    if near:
        target = f"{place.pointer.rpartition('/')[0]}/{escape(near[0])}"
        item["message"] += f" (did you mean {near[0]}?)"
        item["fix"] = [{"op": "move", "from": place.pointer, "path": target}]
    return item


def _wrong_type(walk: Walk, place: Place) -> ErrorItem:
    tags = walk.tags(place.schema)
    sent = place.sent.get("type", MISSING) if isinstance(place.sent, dict) else MISSING
    item: ErrorItem = {
        "pointer": f"{place.pointer}/type",
        "code": "missing_type" if sent is MISSING else "unknown_type",
        "message": f"expected {one_of(tags)}, got {'nothing' if sent is MISSING else quoted(sent)}",
        "allowed": list(tags),
    }
    if sent is MISSING:
        return item
    item["got"] = shorten(sent)
    near = difflib.get_close_matches(sent.lower(), tags, n=1) if isinstance(sent, str) else []
    if near:
        item["message"] += f" (did you mean {near[0]}?)"
        item["fix"] = [{"op": "replace", "path": item["pointer"], "value": near[0]}]
    return item


def _parameter_item(error: Mapping[str, Any], source: str, path: Sequence[str | int]) -> ErrorItem:
    """An error in the query, in the path or in a header: no place in the body, so it names the parameter."""
    item: ErrorItem = {
        "pointer": None,
        "parameter": str(path[0]) if path else source,
        "code": error["type"],
        "message": "",
    }
    if error["type"] == "extra_forbidden":
        item["code"] = "unknown_parameter"
        item["message"] = f"expected only the documented parameters, got {quoted(item['parameter'])}"
        return item
    item["message"] = _plain(error)
    item["got"] = shorten(error.get("input"))
    return item


def _plain(error: Mapping[str, Any]) -> str:
    """Pydantic's own sentence, in this API's form: what was expected, and what came."""
    sentence = str(error["msg"])
    for opening in ("Input should be ", "Value error, "):
        sentence = sentence.removeprefix(opening)
    if sentence.startswith(("less", "greater")):
        sentence = f"a number {sentence}"
    return f"expected {sentence}, got {quoted(error.get('input'))}"
