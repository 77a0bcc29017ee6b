"""The page that documents the API, at `/docs`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.documentation import CONTENT_SECURITY_POLICY, STYLE, render

router = APIRouter(prefix="/docs", include_in_schema=False)


@router.get("")
def get_documentation(request: Request) -> Response:
    """Every call and every schema as HTML."""
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(render(request.app.openapi()), headers=headers, media_type="text/html; charset=utf-8")


@router.get("/style.css")
def get_style() -> Response:
    """How the page looks."""
    return Response(STYLE, media_type="text/css; charset=utf-8")
