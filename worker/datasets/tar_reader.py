"""Reads tar archives (POSIX ustar and pax, GNU's long names), gzipped or not, from front to back: files and folders."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from worker.datasets.extraction import CHUNK_BYTES, ArchiveRefused, Extraction

BLOCK = 512
MAX_HEADER_BYTES = 2**16
"""Of pax records and GNU's long names."""
FILES, FOLDER, LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"0\07", b"5", b"L", b"K", b"x", b"g"
LINKS = b"12"
GZIP = b"\x1f\x8b"
_PAX_RECORD = re.compile(rb"(\d{1,6}) ([^=]{1,255})=", re.DOTALL)


def read_tar(archive: Path, extraction: Extraction) -> None:
    """Extract all files.

    Raises:
        ArchiveRefused: something is not as it must be; what was extracted until then is worthless.
    """
    with archive.open("rb") as file:
        gzipped = file.read(2) == GZIP
        file.seek(0)
        content = Content(_inflated(file) if gzipped else iter(lambda: file.read(CHUNK_BYTES), b""))
        _read(content, extraction)


class Content:
    """The archive's bytes, in order."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0

    def chunks(self, num_bytes: int, name: str | None) -> Iterator[bytes]:
        """The next bytes, which must be there."""
        while num_bytes:
            if self._at == len(self._chunk):
                self._chunk, self._at = next(self._chunks, b""), 0
            if not self._chunk:
                raise ArchiveRefused("archive_damaged", "the tar archive is cut off", name)
            piece = self._chunk[self._at : self._at + num_bytes]
            self._at += len(piece)
            num_bytes -= len(piece)
            yield piece

    def read(self, num_bytes: int, name: str | None = None) -> bytes:
        return b"".join(self.chunks(num_bytes, name))

    def rest(self) -> Iterator[bytes]:
        yield self._chunk[self._at :]
        yield from self._chunks


def _read(content: Content, extraction: Extraction) -> None:
    overrides: dict[str, str] = {}
    num_headers = 0
    while (block := content.read(BLOCK)) != bytes(BLOCK):
        num_headers += 1
        if num_headers > 4 * extraction.limits.members:
            raise ArchiveRefused("too_many_members", f"the archive has more than {extraction.limits.members:,} files")
        kind, name, size = _header(block)
        if kind in (LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL):
            overrides |= _overrides(kind, content, name, size)
            continue
        name, size = overrides.get("path", name), int(overrides.get("size", size))
        overrides = {}
        _check_kind(kind, name)
        if kind == FOLDER or name.endswith("/"):
            if size:
                _damaged("a folder has content", name)
            if name not in (".", "./"):  # the archive's own root is often a member
                extraction.claim(name, is_folder=True)
            continue
        with extraction.open(extraction.claim(name)) as writer:
            for chunk in content.chunks(size, name):
                writer.write(chunk)
        content.read(_padded(size) - size, name)
    _check_end(content)


def _header(block: bytes) -> tuple[bytes, str, int]:
    """Kind, name and size."""
    recorded = _number(block[148:156], "checksum")
    if recorded != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        _damaged("a header has a wrong checksum, as in a file that is no tar archive")
    raw = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    name = _decoded(prefix + b"/" + raw if prefix else raw)
    return block[156:157], name, _number(block[124:136], "size")


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's binary form of what these cannot hold."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            _damaged(f"a header has a negative {what}")
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        _damaged(f"a header has no {what}")
    return int(digits or b"0", 8)


def _overrides(kind: bytes, content: Content, name: str, size: int) -> dict[str, str]:
    """What a header in front of a header says about it: its name and size."""
    if size > MAX_HEADER_BYTES:
        _damaged(f"a header of type {kind.decode()} has {size:,} bytes, at most {MAX_HEADER_BYTES:,} are read", name)
    value = content.read(_padded(size), name)[:size]
    if kind == LONG_NAME:
        return {"path": _decoded(value.removesuffix(b"\0"))}
    if kind in (LONG_LINK, PAX_GLOBAL):
        return {}
    return _pax(value, name)


def _pax(value: bytes, name: str) -> dict[str, str]:
    found, at = {}, 0
    while at < len(value):
        record = _PAX_RECORD.match(value, at)
        stop = at + int(record[1]) if record else 0
        if record is None or stop > len(value) or stop <= record.end() or value[stop - 1 : stop] != b"\n":
            _damaged("a pax header is damaged", name)
        key, text = _decoded(record[2]), _decoded(value[record.end() : stop - 1])
        if key.startswith("GNU.sparse"):
            raise ArchiveRefused("special_file", "expected a plain file, got a sparse one", name)
        if key == "size" and not re.fullmatch(r"\d{1,18}", text):
            _damaged("a pax header has no size", name)
        if key in ("path", "size"):
            found[key] = text
        at = stop
    return found


def _check_kind(kind: bytes, name: str) -> None:
    if kind in FILES or kind == FOLDER:
        return
    if kind in LINKS:
        raise ArchiveRefused("link", "it is a link", name)
    raise ArchiveRefused("special_file", "expected a file or a folder, got a device, pipe or sparse file", name)


def _check_end(content: Content) -> None:
    """Behind the end there may be padding, as tar writes whole records."""
    num_bytes = 0
    for chunk in content.rest():
        num_bytes += len(chunk)
        if chunk.strip(b"\0") or num_bytes > 2**20:
            _damaged("something follows behind its end")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "replace")
        raise ArchiveRefused("odd_name", "expected a name in UTF-8", name) from None


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file, which may have several members, checked by their checksums."""
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    chunk = b""
    while chunk or (chunk := file.read(CHUNK_BYTES)):
        if inflate.eof:
            inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            content = inflate.decompress(chunk, CHUNK_BYTES)
        except zlib.error as error:
            raise ArchiveRefused("archive_damaged", f"the gzip file cannot be decompressed: {error}") from error
        chunk = inflate.unconsumed_tail or inflate.unused_data
        if content:
            yield content
    while not inflate.eof:
        content = inflate.decompress(b"", CHUNK_BYTES)
        if not content and not inflate.eof:
            raise ArchiveRefused("archive_damaged", "the gzip file is cut off")
        yield content


def _damaged(reason: str, name: str | None = None) -> NoReturn:
    raise ArchiveRefused("archive_damaged", f"the tar archive cannot be used: {reason}", name)
