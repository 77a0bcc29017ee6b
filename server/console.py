"""What the commands share: the client behind them, how they print, and how they end."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import httpx
import typer
from pydantic import BaseModel, JsonValue
from rich.console import Console

from server.client import (
    ApiError,
    Client,
    ClientError,
    DigestMismatch,
    NoSuchArtifact,
    NotFound,
    Unauthorized,
    Unavailable,
    Unreachable,
)

FAILED, BAD_INPUT, UNREACHABLE, NOT_FOUND, NOT_ALLOWED, INTERRUPTED = 1, 2, 3, 4, 5, 130
EXIT_CODES: Final = {
    0: "done",
    FAILED: "it went wrong: the job failed or was cancelled, the dataset was refused, `doctor` found a fault",
    BAD_INPUT: "bad input: usage, a file, or a request that the server refused",
    UNREACHABLE: "the server or the store is away, cannot serve, or sent something damaged",
    NOT_FOUND: "no such job, artifact, dataset, webhook or key",
    NOT_ALLOWED: "the API key is missing, has ended, or may not do this",
    INTERRUPTED: "interrupted by Ctrl-C",
}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
API_KEY: ContextVar[str | None] = ContextVar("api_key", default=None)

Url = Annotated[str, typer.Option("--url", envvar="EPOCHD_URL", help="Where the server is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; lists and streams as one document per line.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job: job_…")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="File with the spec as JSON; - reads standard input.")]

SEARCHED: Final = 200
"""Jobs, the newest ones, among which one is looked for that was meant."""
SIMILAR: Final = 0.8
MAX_MATCHES: Final = 3
EXPECTED_URL = "--url or EPOCHD_URL: expected a URL such as http://127.0.0.1:8000"
HOW_TO_START = "Is the server running? Start it with `epochd up --dev`, or name it with --url or EPOCHD_URL."
HOW_TO_GET_A_KEY = (
    "Give a key as EPOCHD_API_KEY, or as `epochd --api-key … COMMAND`; `epochd keys create NAME`, "
    "run where the server runs, makes one."
)


@contextmanager
def connect(url: str) -> Iterator[Client]:
    """A client whose errors become a sentence and an exit code."""
    if not url.startswith(("http://", "https://")):
        fail(BAD_INPUT, f"{EXPECTED_URL}, got {url}")
    try:
        with Client(url, API_KEY.get()) as client:
            try:
                yield client
            except NotFound as error:
                fail(NOT_FOUND, "\n".join([str(error), *_near_matches(client, error.problem["instance"])]))
    except httpx.InvalidURL as error:
        fail(BAD_INPUT, f"{EXPECTED_URL}, got {url}: {error}")
    except Unreachable as error:
        fail(UNREACHABLE, f"{error}\n{HOW_TO_START}")
    except NoSuchArtifact as error:
        fail(NOT_FOUND, str(error))
    except Unauthorized as error:
        lines = [HOW_TO_GET_A_KEY] if error.status_code == httpx.codes.UNAUTHORIZED else []
        fail(NOT_ALLOWED, "\n".join([str(error), *lines]))
    except (Unavailable, DigestMismatch) as error:
        fail(UNREACHABLE, str(error))
    except ApiError as error:
        lines = [f"  {item['pointer'] or 'body'}: {item['message']}" for item in error.problem["errors"]]
        fail(BAD_INPUT, "\n".join([error.problem["title"], *lines] if lines else [str(error)]))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def ending_signals() -> list[signal.Signals]:
    """Those that end `epochd up`: a hangup is none where it is ignored, as `nohup` has it."""
    hangups = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangups]


def fail(code: int, message: str) -> NoReturn:
    err.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def print_json(answer: BaseModel | dict[str, JsonValue]) -> None:
    """One document, on a line of its own."""
    text = answer.model_dump_json() if isinstance(answer, BaseModel) else json.dumps(answer)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def read_spec(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or on standard input where `path` is `-`."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
        spec = json.loads(text)
    except OSError as error:
        fail(BAD_INPUT, f"{path}: {error.strerror or error}")
    except ValueError as error:
        fail(BAD_INPUT, f"{path}: {error}")
    if not isinstance(spec, dict):
        fail(BAD_INPUT, f"{path}: expected a JSON object, got {type(spec).__name__}")
    return spec


def _near_matches(client: Client, instance: str) -> list[str]:
    """What may have been meant by the id in the path of a request that found nothing."""
    _, _, kind, wanted, *_ = [*instance.split("/"), "", "", ""]
    try:
        found: list[tuple[str, str]] = []
        if kind == "jobs":
            found = [(job.id, job.name or "") for job in islice(client.list(), SEARCHED)]
        elif kind == "datasets":
            found = [(dataset.id, dataset.name) for dataset in islice(client.datasets.list(), SEARCHED)]
        elif kind == "webhooks":
            found = [(webhook.id, webhook.url) for webhook in islice(client.webhooks.list(), SEARCHED)]
    except ClientError:  # what is reported is that nothing was found
        return []
    ranked = sorted(((_likeness(wanted, each), each) for each in found), key=lambda pair: -pair[0])
    near = [f"  {key}  {name}".rstrip() for likeness, (key, name) in ranked[:MAX_MATCHES] if likeness >= SIMILAR]
    listing = {"jobs": "epochd ls", "webhooks": "epochd webhooks ls"}.get(kind, "epochd dataset ls")
    return ["Did you mean:", *near] if near else [f"`{listing}` shows what there is."]


def _likeness(wanted: str, found: tuple[str, str]) -> float:
    """Of 0 to 1; the start or the end of an id stands for it, and so does a name."""
    key, name = found
    if key.startswith(wanted) or key.endswith(wanted):
        return 1.0
    return max(SequenceMatcher(None, wanted, text).ratio() for text in (key, name))
