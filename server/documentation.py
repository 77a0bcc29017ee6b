"""The OpenAPI document as a page for people: plain HTML without scripts, so that it needs no network and no trust."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
section { border-top: 1px solid #8886; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #8884; padding: 0.2rem 0.6rem 0.2rem 0; text-align: left; vertical-align: top; }
h3 { margin-bottom: 0; }
"""
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"
_CONSTRAINTS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "minLength": "length ≥",
    "maxLength": "length ≤",
    "minItems": "items ≥",
    "maxItems": "items ≤",
    "pattern": "matches",
    "format": "format",
    "default": "default",
}


def render(document: Mapping[str, Any]) -> str:
    """The page: the operations by tag, then every schema."""
    info = document["info"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = list(dict.fromkeys(operation["tags"][0] for _, _, operation in operations))
    links = " · ".join(f'<a href="#tag-{escape(tag)}">{escape(tag)}</a>' for tag in [*tags, "schemas"])
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/docs/style.css">'
        f"<title>{escape(info['title'])} API</title>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{html_text(info['description'])}</p>"
        f'<p>{links} · <a href="/openapi.json">openapi.json</a></p>'
    )
    parts = [head]
    for tag in tags:
        parts.append(f'<section id="tag-{escape(tag)}"><h2>{escape(tag)}</h2>')
        parts += [_operation(*operation) for operation in operations if operation[2]["tags"][0] == tag]
        parts.append("</section>")
    parts.append('<section id="tag-schemas"><h2>schemas</h2>')
    parts += [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "".join([*parts, "</section></html>"])


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = [
        (f"{parameter['name']} ({parameter['in']})", parameter["schema"], parameter.get("required", False))
        for parameter in operation.get("parameters", ())
    ]
    bodies = operation.get("requestBody", {}).get("content", {})
    sent = "".join(f"<p>Body: {_content(media_type, content)}</p>" for media_type, content in bodies.items())
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{html_text(answer['description'])}<td>"
        + ", ".join(_content(media_type, content) for media_type, content in answer.get("content", {}).items())
        for status, answer in sorted(operation["responses"].items())
    )
    key = "" if "security" in operation else "<p>Needs no key.</p>"
    return (
        f'<h3 id="{escape(operation["operationId"])}"><code>{method} {escape(path)}</code></h3>'
        f"<p>{html_text(operation.get('description', ''))}</p>{key}{_fields(parameters)}{sent}<table>{answers}</table>"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    fields = [(field, value, field in required) for field, value in schema.get("properties", {}).items()]
    what = "" if fields else f"<p>{_type(schema)}</p>"
    return (
        f'<h3 id="schema-{escape(name)}"><code>{escape(name)}</code></h3>'
        f"<p>{html_text(schema.get('description', ''))}</p>{what}{_fields(fields)}"
    )


def _fields(fields: Iterable[tuple[str, Mapping[str, Any], bool]]) -> str:
    rows = [
        f"<tr><td><code>{escape(name)}</code>{' (required)' if required else ''}"
        f"<td>{_type(schema)}<td>{html_text(schema.get('description', ''))}"
        for name, schema, required in fields
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _content(media_type: str, content: Mapping[str, Any]) -> str:
    return f"<code>{escape(media_type)}</code> {_type(content.get('schema', {}))}"


def _type(schema: Mapping[str, Any]) -> str:
    """What a value may be, with links to the schemas that it names."""
    return " or ".join(dict.fromkeys(_alternatives(schema)))


def _alternatives(schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        yield f'<a href="#schema-{name}">{name}</a>'
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _alternatives(option)
    if "enum" in schema:
        yield from (f"<code>{_value(value)}</code>" for value in schema["enum"])
    elif "const" in schema:
        yield f"<code>{_value(schema['const'])}</code>"
    elif "type" in schema:
        limits = [f"{words} {_value(schema[name])}" for name, words in _CONSTRAINTS.items() if name in schema]
        items = f" of {_type(schema['items'])}" if schema.get("items") else ""
        yield f"{escape(schema['type'])}{items}{''.join(f', {limit}' for limit in limits)}"


def _value(value: object) -> str:
    return escape(value if isinstance(value, str) else json.dumps(value))


def html_text(text: str) -> str:
    """A description: what stands between backticks is code, an empty line begins a paragraph."""
    pieces = escape(text).split("`")
    marked = "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
    return marked.replace("\n\n", "<p>")
