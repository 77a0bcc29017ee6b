"""Reads JSON bodies more strictly than Python's `json` does, and says where a body is wrong.

Refused: text that is not UTF-8 JSON without a byte order mark, `NaN` and infinities (also `1e999`), integers beyond 64
bits, lone surrogates and NUL characters in strings, keys that occur twice, nesting deeper than `MAX_DEPTH`, and more
than `MAX_VALUES` values.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from email.message import Message
from itertools import islice
from typing import Any, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from server.errors import MalformedBody, UnsupportedMediaType
from server.schemas import ErrorItem
from server.validation import MAX_ITEMS
from server.wording import escape, quoted, shorten

MAX_DEPTH = 64
MAX_VALUES = 20_000
"""Ten times what a long spec has; telling what is wrong with many more would take seconds."""
SHORT_BYTES = 4096
"""Up to here reading a body takes less time than having another thread read it."""
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
MAX_EXACT = 2**53

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.?)*+"?|[\[\]{},]', re.DOTALL)
"""Strings (closed or not), brackets and commas; possessive, so that an open string costs one pass."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class JsonRoute(APIRoute):
    """A route whose JSON body is read by this module."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


class JsonRequest(Request):
    """A request as FastAPI reads it: `body()` is called for routes that declare a body, then `json()`."""

    async def body(self) -> bytes:
        body = await super().body()
        if body:
            _require_json(self.headers.get("content-type"), self.headers.get("content-encoding"))
        return body

    async def json(self) -> Any:
        """The value is kept as `request.state.body`, too, for dependencies that look at it before it is validated."""
        body = await self.body()
        self.state.body = parse(body) if len(body) <= SHORT_BYTES else await run_in_threadpool(parse, body)
        return self.state.body


def _require_json(content_type: str | None, content_encoding: str | None) -> None:
    if content_type == "application/json" and content_encoding is None:
        return  # as nearly everybody sends it: reading the header's parameters takes longer than the JSON
    message = Message()
    message["content-type"] = content_type or "missing"
    media_type = message["content-type"].partition(";")[0].strip().lower()
    if media_type != "application/json" or message.get_content_charset("utf-8") not in ("utf-8", "us-ascii"):
        raise UnsupportedMediaType(f"expected Content-Type: application/json in UTF-8, got {quoted(content_type)}")
    if content_encoding not in (None, "identity"):
        raise UnsupportedMediaType(
            f"expected a body without Content-Encoding, got {quoted(content_encoding)}",
            headers={"Accept-Encoding": "identity"},
        )


def parse(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        MalformedBody: with the byte offset of a fault of the text, or with the JSON Pointers of the faulty values.
    """
    text = _decode(body)
    _check_shape(body)
    reader = _Reader()
    try:
        value = reader.read(text)
    except json.JSONDecodeError as error:
        _fail(f"expected JSON: {error.msg[0].lower()}{error.msg[1:]}", len(text[: error.pos].encode()), body)
    # Only an escape can put into a string what UTF-8 cannot.
    if reader.faulty or b"\\u" in body:
        items = list(islice(_faults(value, ""), MAX_ITEMS))
        if items:
            raise MalformedBody(f"{items[0]['pointer'] or 'the body'}: {items[0]['message']}", errors=items)
    return value


def _decode(body: bytes) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        _fail("expected UTF-8 without a byte order mark", 0, body)
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in body[:4]:
        _fail("expected UTF-8, got UTF-16, UTF-32 or binary", 0, body)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        _fail("expected UTF-8, got a byte that is not", error.start, body)


def _check_shape(body: bytes) -> None:
    """Refuse what would cost seconds or the stack to validate, before it is read."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH and body.count(b",") <= MAX_VALUES:
        return
    depth = num_values = 0
    for token in _TOKENS.finditer(body):
        character = token[0][:1]
        if character in b"]}":
            depth -= 1
        elif character != b'"':
            num_values += 1
            depth += character != b","
        if depth > MAX_DEPTH:
            _fail(f"expected at most {MAX_DEPTH} levels of lists and objects, got more", token.start(), body)
        if num_values > MAX_VALUES:
            _fail(f"expected at most {MAX_VALUES} values, got more", token.start(), body)


def _fail(message: str, offset: int, body: bytes) -> NoReturn:
    near = body[offset : offset + 20].decode("utf-8", "replace")
    came = f"at byte {offset} of {len(body)}, near {quoted(near)}" if near else f"at byte {offset}, the end of the body"
    item: ErrorItem = {"pointer": None, "offset": offset, "code": "malformed_json", "message": f"{message}, {came}"}
    raise MalformedBody(item["message"], errors=[item])


@dataclass(frozen=True)
class _Fault:
    """Stands in the parsed value where something stood that is refused."""

    code: str
    message: str
    got: str


class _Repeated(dict[str, Any]):
    """An object in which a key occurs twice."""

    key: str


class _Reader:
    """Python's JSON reader with `_Fault` and `_Repeated` where it would accept too much."""

    def __init__(self) -> None:
        self.faulty = False

    def read(self, text: str) -> Any:
        return json.loads(
            text,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._int,
            object_pairs_hook=self._object,
        )

    def _fault(self, code: str, expected: str, text: str) -> _Fault:
        self.faulty = True
        return _Fault(code, f"expected {expected}, got {shorten(text)}", text)

    def _constant(self, text: str) -> _Fault:
        return self._fault("not_finite", "a finite number", text)

    def _float(self, text: str) -> float | int | _Fault:
        value = float(text)
        if not math.isfinite(value):
            return self._fault("not_finite", "a number of 64 bits", text)
        # JSON has one type of numbers: 92.0 is an integer there.
        return int(value) if value.is_integer() and abs(value) < MAX_EXACT else value

    def _int(self, text: str) -> int | _Fault:
        if len(text) <= len(str(MIN_INTEGER)) and MIN_INTEGER <= int(text) <= MAX_INTEGER:
            return int(text)
        return self._fault("integer_too_large", "an integer of 64 bits", text)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        self.faulty = True
        repeated = _Repeated(value)
        repeated.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        return repeated


def _faults(value: Any, pointer: str) -> Iterator[ErrorItem]:
    match value:
        case _Fault(code, message, got):
            yield {"pointer": pointer, "code": code, "message": message, "got": shorten(got)}
        case str():
            yield from _text_faults(value, pointer)
        case list():
            for index, item in enumerate(value):
                yield from _faults(item, f"{pointer}/{index}")
        case dict():
            if isinstance(value, _Repeated):
                message = f"expected each key once, got {quoted(value.key)} twice"
                yield {"pointer": f"{pointer}/{_readable(value.key)}", "code": "duplicate_key", "message": message}
            for key, item in value.items():
                below = f"{pointer}/{_readable(key)}"
                yield from _text_faults(key, below)
                yield from _faults(item, below)


def _text_faults(text: str, pointer: str) -> Iterator[ErrorItem]:
    found = _NO_TEXT.search(text)
    if found:
        what = "the character U+0000" if found[0] == "\0" else f"the lone surrogate U+{ord(found[0]):04X}"
        yield {"pointer": pointer, "code": "invalid_character", "message": f"expected Unicode text, got {what}"}


def _readable(key: str) -> str:
    return escape(key.encode("utf-8", "replace").decode("utf-8"))
