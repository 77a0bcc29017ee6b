"""The OpenAPI document: FastAPI's, with this API's errors in place of FastAPI's own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from server.problems import MEDIA_TYPE
from server.schemas import Problem

Responses = dict[int | str, dict[str, Any]]
NOT_MODIFIED: Responses = {304: {"description": "`If-None-Match` names what is there"}}
_REFERENCE = "#/components/schemas/{model}"


def problems(*status_codes: int) -> Responses:
    """The error answers of a route, for its `responses`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}
    return {code: {"description": HTTPStatus(code).phrase, "content": content} for code in status_codes}


def body_of(media_type: str) -> Responses:
    """The answer of a route that serves a file, for its `responses`."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    partial = {"description": "The part that `Range` asked for", "content": content}
    return {200: {"description": "The file", "content": content}, 206: partial}


def operation_id(route: APIRoute) -> str:
    """The function's name: what generated clients call the operation."""
    return route.name


def install(app: FastAPI, public: Collection[Callable[..., Any]]) -> None:
    """Make `app.openapi()` describe problems, and which routes need no key."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            _describe_problems(document, document["components"]["schemas"])
            _describe_public(document, {function.__name__ for function in public})
            return document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _describe_problems(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    problem = TypeAdapter(Problem).json_schema(ref_template=_REFERENCE)
    schemas |= problem.pop("$defs") | {"Problem": problem}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            if MEDIA_TYPE not in responses.get("422", {}).get("content", {MEDIA_TYPE: None}):
                del responses["422"]  # FastAPI's own, where nothing can be invalid


def _describe_public(document: dict[str, Any], operation_ids: Collection[str]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            if operation["operationId"] in operation_ids:
                del operation["security"]
                for status_code in ("401", "403", "429"):
                    del operation["responses"][status_code]
