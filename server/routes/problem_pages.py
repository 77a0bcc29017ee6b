"""The pages behind the `type` of errors, for browsers as HTML, for others as JSON."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from server.documentation import CONTENT_SECURITY_POLICY
from server.errors import NotFound
from server.problem_pages import EXPLANATIONS, index, page, statuses
from server.wording import quoted

router = APIRouter(prefix="/problems", include_in_schema=False)


@router.get("")
def list_problems(request: Request) -> Response:
    """Every kind of problem."""
    return _html(index()) if _wants_html(request) else JSONResponse([_document(code) for code in EXPLANATIONS])


@router.get("/{code}")
def get_problem(code: str, request: Request) -> Response:
    """What a kind of problem means, and what to do about it."""
    if code not in EXPLANATIONS:
        raise NotFound(f"expected the code of a problem, as /problems lists them, got {quoted(code)}")
    return _html(page(code)) if _wants_html(request) else JSONResponse(_document(code))


def _wants_html(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _document(code: str) -> dict[str, object]:
    found = statuses(code)
    return {
        "type": f"/problems/{code}",
        "code": code,
        "title": found[0].phrase,
        "statuses": [status.value for status in found],
        "cause": EXPLANATIONS[code].cause,
        "remedy": EXPLANATIONS[code].remedy,
    }


def _html(text: str) -> Response:
    return HTMLResponse(text, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Vary": "Accept"})
