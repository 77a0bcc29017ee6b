from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI

from server.documentation import render

pytestmark = pytest.mark.anyio


class Page(HTMLParser):
    """The ids, references and elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.references: set[str] = set()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids |= {str(value) for name, value in attrs if name == "id"}
        self.references |= {str(value) for name, value in attrs if name in ("href", "src")}


async def test_the_page_names_every_operation_and_schema_and_needs_nothing_else(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    response = await http.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(response.text)
    document = app.openapi()
    operations = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    schemas = {f"schema-{name}" for name in document["components"]["schemas"]}
    assert operations | schemas <= page.ids
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= page.ids
    for reference in page.references - {r for r in page.references if r.startswith("#")}:
        assert re.fullmatch(r"/[a-z./]+", reference), "of this server"
        assert (await http.get(reference)).status_code == 200


async def test_the_page_runs_nothing(http: httpx.AsyncClient) -> None:
    response = await http.get("/docs")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert "unsafe" not in policy
    page = Page(response.text)
    assert not page.elements & {"script", "style", "iframe", "form", "object"}
    assert not {name for name in page.attributes if name.startswith("on") or name == "style"}


def test_what_a_description_holds_is_text() -> None:
    operation = {
        "tags": ["<b>"],
        "operationId": "x",
        "description": "<script>alert(1)</script> `a<b`",
        "responses": {"200": {"description": "<i>"}},
    }
    document = {
        "info": {"title": "t", "version": "1", "description": "d"},
        "paths": {"/<x>": {"get": operation}},
        "components": {"schemas": {"S": {"type": "string", "pattern": "<u>", "default": "&"}}},
    }
    text = render(document)
    assert not Page(text).elements & {"script", "b", "i", "x", "u"}
    assert "<code>a&lt;b</code>" in text
    assert "string, matches &lt;u&gt;, default &amp;" in text
