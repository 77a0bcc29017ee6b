"""Serves files with ranges and validators (RFC 9110 §13–14): one range at a time, strong ETags only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from server.errors import RangeNotSatisfiable
from server.wording import quoted

BLOCK_BYTES = 2**18
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_response(
    request: Request, path: Path, *, media_type: str, etag: str | None, headers: Mapping[str, str]
) -> Response:
    """A file as it is now, or the part of it that the request asks for, or 304.

    Args:
        etag: a strong entity tag, quotes included; None for a file that still grows.

    Raises:
        RangeNotSatisfiable: the range begins behind the end.
    """
    size = path.stat().st_size
    common = {**headers, "Accept-Ranges": "bytes"} | ({"ETag": etag} if etag else {})
    if etag and etag_matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=common)
    start, stop, status = 0, size, 200
    if request.headers.get("if-range", etag) == etag:
        part = byte_range(request.headers.get("range"), size)
        if part is not None:
            start, stop = part
            status = 206
            common["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    common["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=common, media_type=media_type)
    return StreamingResponse(blocks(path, start, stop), status, common, media_type)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop of the range that a `Range` header names; None for the whole, as for several ranges at once.

    Raises:
        RangeNotSatisfiable: the range begins behind the end.
    """
    found = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        detail = f"expected a range that begins before byte {size}, got {quoted(header)}"
        raise RangeNotSatisfiable(detail, headers={"Content-Range": f"bytes */{size}"})
    return start, stop


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names this entity tag; weak tags count as equal there."""
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return "*" in tags or etag in tags


def blocks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` up to `stop`, in blocks."""
    with path.open("rb") as file:
        file.seek(start)
        while start < stop and (block := file.read(min(BLOCK_BYTES, stop - start))):
            start += len(block)
            yield block


def tail_offset(path: Path, size: int, num_lines: int) -> int:
    """Where the last `num_lines` lines of the first `size` bytes begin."""
    with path.open("rb") as file:
        stop = size
        wanted = num_lines + 1
        while stop > 0:
            start = max(0, stop - BLOCK_BYTES)
            file.seek(start)
            block = file.read(stop - start)
            if stop == size and not block.endswith(b"\n"):
                wanted -= 1
            position = len(block)
            while wanted and (position := block.rfind(b"\n", 0, position)) >= 0:
                wanted -= 1
            if not wanted:
                return start + position + 1
            stop = start
    return 0
