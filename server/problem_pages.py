"""What each kind of problem means, and what to do about it: behind the `type` of an error, `/problems/{code}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Final

from server.documentation import html_text
from server.errors import ProblemError


@dataclass(frozen=True)
class Explanation:
    """Texts in which code stands between backticks."""

    cause: str
    remedy: str


FRAMEWORK: Final = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "internal_server_error": HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Problems without a class of their own: the HTTP framework finds them."""

EXPLANATIONS: Final[Mapping[str, Explanation]] = {
    "bad_request": Explanation(
        "The request could not be read as HTTP or as the form that its headers announce.",
        "Compare method, headers and body with `/docs`; `detail` says what was found.",
    ),
    "malformed_body": Explanation(
        "The body is not JSON in UTF-8, or has what JSON or this API cannot hold: NaN, infinities, integers beyond "
        "64 bits, a key that occurs twice, lone surrogates, or too much nesting.",
        "`errors` gives the byte at which reading stopped, or the places of the values. Write the body with a library.",
    ),
    "host_not_allowed": Explanation(
        "The `Host` header names somebody else: this protects servers on loopback from pages that rebind their name.",
        "Ask under a name that the server knows, or let the operator add yours to `EPOCHD_ALLOWED_HOSTS`.",
    ),
    "unauthenticated": Explanation(
        "No API key was sent, or one that this server does not know, or that has expired or was revoked.",
        "Send `Authorization: Bearer epk_…`. The operator makes a key with `epochd keys create NAME`.",
    ),
    "forbidden": Explanation(
        "The caller may not do that.",
        "Ask with another key, or an administrator.",
    ),
    "origin_not_allowed": Explanation(
        "A page of another origin asks for a change: this protects users of browsers from forged requests.",
        "Use the server's own page, or let the operator add the origin to `EPOCHD_ALLOWED_ORIGINS`.",
    ),
    "insufficient_scope": Explanation(
        "The API key is good for less: `read` looks, `submit` also changes, `admin` also sees everybody's and makes "
        "keys. Without keys (`EPOCHD_AUTH=off`) only this machine may ask.",
        "Ask with a key of the scope that `detail` names.",
    ),
    "quota_exceeded": Explanation(
        "The API key's quota has no room: `quota`, `limit` and `used` say which. With 429 there may be room later, as "
        "when queued jobs have run; with 403 waiting does not help.",
        "With 429 wait for `Retry-After` seconds; with 403 delete what is not needed, or ask an administrator for "
        "more. `GET /v1/key` shows what is used.",
    ),
    "not_found": Explanation(
        "The API has no such path.",
        "Compare it with `/docs` or `/openapi.json`; paths have no slash at the end.",
    ),
    "job_not_found": Explanation(
        "There is no job of this id, it was deleted, or it belongs to another key.",
        "`GET /v1/jobs` or `epochd ls` lists your jobs.",
    ),
    "artifact_not_found": Explanation(
        "The job has made no artifact of this name, or not yet.",
        "`GET /v1/jobs/{id}/artifacts` lists what is there; most files come when the job ends.",
    ),
    "api_key_not_found": Explanation(
        "There is no API key of this id; a server without keys has none at all.",
        "`GET /v1/keys` or `epochd keys ls` lists them; ids begin with `key_`, secrets with `epk_`.",
    ),
    "webhook_not_found": Explanation(
        "There is no webhook of this id, it was deleted, or it belongs to another key.",
        "`GET /v1/webhooks` or `epochd webhooks ls` lists your webhooks.",
    ),
    "delivery_not_found": Explanation(
        "The webhook has no delivery of this id, or it was finished more than seven days ago.",
        "`GET /v1/webhooks/{id}/deliveries` lists what can still be seen.",
    ),
    "upload_not_found": Explanation(
        "There is no upload of this id, it has expired, or it belongs to another key.",
        "Announce the file again with `POST /v1/uploads`; what has come is found by its digest.",
    ),
    "dataset_not_found": Explanation(
        "There is no dataset of this id, it was deleted, or it belongs to another key.",
        "`GET /v1/datasets` or `epochd dataset ls` lists your datasets.",
    ),
    "method_not_allowed": Explanation(
        "The path exists, but not for this method.",
        "The `Allow` header lists its methods.",
    ),
    "body_timeout": Explanation(
        "The body did not arrive in time: 30 seconds, or 10 minutes for a part of an upload.",
        "Send it again; send files in smaller parts where the network is slow.",
    ),
    "conflict": Explanation(
        "What is there does not allow it now: `job_status` and `allowed_actions` say what a job allows.",
        "Look at it again, and ask for one of the `allowed_actions`, or wait.",
    ),
    "duplicate_job": Explanation(
        "A job of the same spec on the same images is there, and the request asked for `on_duplicate: reject`.",
        "Use the job that `job_id` names, or ask with `on_duplicate: create` or `reuse`.",
    ),
    "dataset_not_ready": Explanation(
        "The dataset is still being validated, or was refused.",
        "Look at `status` and `report` of the dataset; after a refusal mend the files and register them again.",
    ),
    "webhook_disabled": Explanation(
        "The webhook delivers nothing: nothing could be delivered for more than a day, or its receiver was gone.",
        "Mend the receiver, then `POST /v1/webhooks/{id}/enable`; `disabled_reason` says what went wrong.",
    ),
    "model_missing": Explanation(
        "The job has no network that can be asked: it has not ended, or it ended without an export.",
        "Wait until the job has succeeded, or ask another one.",
    ),
    "precondition_failed": Explanation(
        "`If-Match` names an entity tag, and the thing has changed since.",
        "Get it again, decide anew, and send its newest `ETag`.",
    ),
    "content_too_large": Explanation(
        "The body is larger than the limit: 1 MiB, 16 MiB for images to be predicted, 64 MiB for a part of an upload; "
        "files have a limit, too.",
        "Send less; files go to `/v1/uploads` in parts. The operator sets `EPOCHD_MAX_UPLOAD_BYTES`.",
    ),
    "unsupported_media_type": Explanation(
        "The body's `Content-Type` or `Content-Encoding` is not what the call takes.",
        "Send `Content-Type: application/json` without compression, or what `/docs` lists for the call.",
    ),
    "range_not_satisfiable": Explanation(
        "`Range` asks for bytes behind the end of the file.",
        "`Content-Range` of the answer has the file's size; begin within it, or leave `Range` out.",
    ),
    "invalid_request": Explanation(
        "The request can be read, but something in it has the wrong meaning.",
        "`errors` has each fault: its `pointer` into the body, or its `parameter`, what was expected and what came, "
        "and where one is likely a `fix` as JSON Patch.",
    ),
    "digest_mismatch": Explanation(
        "The bytes that came are not those that were announced by their digest: they changed on the way.",
        "Send the part again; nothing of it was kept.",
    ),
    "upload_discarded": Explanation(
        "The whole file is not the one that was announced by its SHA-256, and was thrown away.",
        "Compute the digest of the file as it is now, and announce it again.",
    ),
    "idempotency_key_reused": Explanation(
        "The `Idempotency-Key` was given to another request within the last 24 hours.",
        "Take a new random key for each new request, and the same one only to send the same request again.",
    ),
    "rate_limited": Explanation(
        "Too many requests came with this API key within a minute.",
        "Wait for `Retry-After` seconds; the `RateLimit` headers say what is left. `Prefer: wait=30` and streams of "
        "events need fewer requests than polling.",
    ),
    "too_many_streams": Explanation(
        "Too many streams of events and waiting requests are open with this API key.",
        "End some; one stream of `GET /v1/events` carries the events of all your jobs.",
    ),
    "internal_server_error": Explanation(
        "An error in the server; its log has the details under the `request_id`.",
        "Give the operator the `request_id`. Sending the request again with the same `Idempotency-Key` is safe.",
    ),
    "unavailable": Explanation(
        "The database, the queue or a worker is away, or the server has as much to do as it may; nothing was changed.",
        "Send it again after `Retry-After` seconds. For operators: `/readyz` says what is away.",
    ),
    "insufficient_storage": Explanation(
        "The server's disk has no room for it.",
        "Delete jobs, uploads or datasets that are not needed, or ask the operator for more room.",
    ),
}


def statuses(code: str) -> list[HTTPStatus]:
    """The statuses with which a problem of this code comes."""
    if code in FRAMEWORK:
        return [FRAMEWORK[code]]
    return sorted({kind.status for kind in _kinds(ProblemError) if kind.code == code})


def codes() -> set[str]:
    """Every code that an answer may have."""
    return {kind.code for kind in _kinds(ProblemError)} | set(FRAMEWORK)


def _kinds(kind: type[ProblemError]) -> Iterator[type[ProblemError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)


def page(code: str) -> str:
    """A problem for people."""
    explanation = EXPLANATIONS[code]
    titles = " or ".join(f"{status.value} {status.phrase}" for status in statuses(code))
    body = (
        f"<p>Comes with status {escape(titles)}.</p><h2>Cause</h2><p>{html_text(explanation.cause)}</p>"
        f"<h2>What to do</h2><p>{html_text(explanation.remedy)}</p>"
        '<p><a href="/problems">All problems</a> · <a href="/docs">All calls</a></p>'
    )
    return _document(code, body)


def index() -> str:
    """All of them, by status."""
    rows = "".join(
        f"<tr><td>{', '.join(str(status.value) for status in statuses(code))}"
        f'<td><a href="/problems/{escape(code)}"><code>{escape(code)}</code></a>'
        f"<td>{html_text(EXPLANATIONS[code].cause)}"
        for code in sorted(EXPLANATIONS, key=lambda code: (statuses(code), code))
    )
    return _document("Problems", f"<table>{rows}</table>")


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)} · epochd</title>'
        f'<link rel="stylesheet" href="/docs/style.css"><h1>{escape(title)}</h1>{body}</html>'
    )
