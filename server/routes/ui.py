"""The web page, at `/ui`: static files that call the API as any other client does."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = StaticFiles(directory=Path(__file__).parents[1] / "ui", html=True)


@router.get("/")
@router.get("/ui")
def get_start() -> RedirectResponse:
    """The page is what people look for first."""
    return RedirectResponse("/ui/")


@router.get("/ui/{path:path}")
async def get_page(path: str, request: Request) -> Response:
    """A file of the page, checked anew by its entity tag each time, so that no two versions of it mix."""
    response = await FILES.get_response(path or ".", request.scope)
    response.headers.update({"Cache-Control": "no-cache", "Content-Security-Policy": CONTENT_SECURITY_POLICY})
    return response
