"""What the commands share: the client behind them, how they print, and how they end.

Exit codes: 0 done · 1 the job failed or was cancelled · 2 bad input · 3 the server is unreachable or cannot serve
· 4 no such thing · 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console

from server.client import ApiError, Client, NoSuchArtifact, NotFound, Unavailable, Unreachable

JOB_FAILED, BAD_INPUT, UNREACHABLE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 4, 130

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
API_KEY: ContextVar[str | None] = ContextVar("api_key", default=None)

Url = Annotated[str, typer.Option("--url", envvar="EPOCHD_URL", help="Where the server is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it; one document per line.")]


@contextmanager
def connect(url: str) -> Iterator[Client]:
    """A client whose errors become a sentence and an exit code."""
    try:
        with Client(url, API_KEY.get()) as client:
            yield client
    except Unreachable as error:
        fail(UNREACHABLE, f"{error}\nIs the server running? Start it with `epochd up --dev`, or name it with --url.")
    except (NotFound, NoSuchArtifact) as error:
        fail(NOT_FOUND, str(error))
    except Unavailable as error:
        fail(UNREACHABLE, str(error))
    except ApiError as error:
        lines = [f"  {item['pointer'] or 'body'}: {item['message']}" for item in error.problem["errors"]]
        fail(BAD_INPUT, "\n".join([error.problem["title"], *lines] if lines else [str(error)]))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def fail(code: int, message: str) -> NoReturn:
    err.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def print_json(answer: BaseModel) -> None:
    out.print(answer.model_dump_json(), soft_wrap=True, markup=False)
