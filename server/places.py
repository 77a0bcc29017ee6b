"""Where pydantic's paths lead: in what was sent, as a JSON Pointer, and in the JSON Schema, as what was allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.wording import escape

Schema = Mapping[str, Any]
"""A JSON Schema (or a part of one), as `TypeAdapter.json_schema()` makes it."""

MISSING = object()


@dataclass(frozen=True)
class Place:
    """Where a pydantic path leads: in what was sent, and in the schema."""

    pointer: str
    sent: object
    schema: Schema
    parent: Schema
    """The schema of the object or list around it."""


class Walk:
    """Follows pydantic's path through what was sent and through the schema."""

    def __init__(self, body: object, root: Schema) -> None:
        self.body = body
        self.root = root

    def place(self, path: Sequence[str | int]) -> Place:
        place = Place("", self.body, self.root, self.root)
        for part in path:
            place = self._step(place, part)
        return place

    def options(self, schema: Schema) -> Iterator[Schema]:
        """The alternatives that a schema stands for, references resolved; a tagged union counts as one."""
        if "$ref" in schema:
            yield from self.options(self.root["$defs"][schema["$ref"].rpartition("/")[2]])
        elif "anyOf" in schema or ("oneOf" in schema and "discriminator" not in schema):
            for option in schema.get("anyOf") or schema["oneOf"]:
                yield from self.options(option)
        else:
            yield schema

    def tags(self, schema: Schema) -> list[str]:
        return [tag for option in self.options(schema) for tag in option.get("discriminator", {}).get("mapping", {})]

    def fields(self, schema: Schema) -> list[str]:
        return [name for option in self.options(schema) for name in option.get("properties", {})]

    def _step(self, place: Place, part: str | int) -> Place:
        sent, schema = place.sent, place.schema
        for option in self.options(schema):
            reference = option.get("discriminator", {}).get("mapping", {}).get(part)
            if reference is not None:
                return Place(place.pointer, sent, {"$ref": reference}, place.parent)
        below = self._below(schema, part)
        if isinstance(sent, dict) and part in sent:
            return Place(f"{place.pointer}/{escape(part)}", sent[part], below or {}, schema)
        if isinstance(sent, list) and isinstance(part, int) and part < len(sent):
            return Place(f"{place.pointer}/{part}", sent[part], below or {}, schema)
        if below is not None and isinstance(part, str):
            return Place(f"{place.pointer}/{escape(part)}", MISSING, below, schema)
        return place  # the label of an alternative, such as `int` or `literal['same']`

    def _below(self, schema: Schema, part: str | int) -> Schema | None:
        for option in self.options(schema):
            if isinstance(part, str) and part in option.get("properties", {}):
                below: Schema = option["properties"][part]
                return below
            if isinstance(part, int) and "items" in option:
                return option["items"] if isinstance(option["items"], dict) else {}
            if isinstance(part, int) and part < len(option.get("prefixItems", ())):
                below = option["prefixItems"][part]
                return below
        return None

    def expected(self, schema: Schema) -> str:
        """The schema in words, such as `a number > 0 and <= 1`; empty where it says nothing."""
        words = [_words(option) for option in self.options(schema)]
        return " or ".join(dict.fromkeys(filter(None, words)))


def _words(schema: Schema) -> str:
    if "discriminator" in schema:
        return f'an object with "type" {one_of(schema["discriminator"]["mapping"])}'
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return one_of(schema["enum"])
    kind = schema.get("type")
    limits = " and ".join(f"{sign} {schema[key]}" for key, sign in _LIMITS.items() if key in schema)
    if kind == "array":
        items = " and ".join(f"{sign} {schema[key]}" for key, sign in _LENGTHS.items() if key in schema)
        return f"a list of {items} items" if items else "a list"
    if kind == "string":
        return _string_words(schema)
    name = _TYPES.get(kind, "") if isinstance(kind, str) else ""
    return f"{name} {limits}".strip() if name else ""


_TYPES = {
    "integer": "an integer",
    "number": "a finite number",
    "boolean": "true or false",
    "object": "an object",
    "null": "null",
}
_LIMITS = {
    "exclusiveMinimum": ">",
    "minimum": ">=",
    "exclusiveMaximum": "<",
    "maximum": "<=",
    "multipleOf": "a multiple of",
}
_LENGTHS = {"minItems": "at least", "maxItems": "at most"}


def _string_words(schema: Schema) -> str:
    words = ["a string"]
    if "minLength" in schema or "maxLength" in schema:
        words.append(f"of {schema.get('minLength', 0)} to {schema.get('maxLength', 'any number of')} characters")
    if "pattern" in schema:
        words.append(f"that matches {schema['pattern']}")
    return " ".join(words)


def one_of(values: Iterable[object]) -> str:
    names = [json.dumps(value) for value in values]
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
