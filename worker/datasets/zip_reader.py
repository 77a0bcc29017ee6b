"""Reads zip archives (PKWARE's APPNOTE 6.3): stored and deflated members, zip64, nothing encrypted or spread out.

Python's `zipfile` finds no overlapping members before 3.11.8, and extracts the last of two members of one name. Here
every byte of the archive belongs to at most one member, and what two headers say about a member must agree.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from worker.datasets.extraction import CHUNK_BYTES, ArchiveRefused, Extraction, size_of

END = struct.Struct("<4s4H2LH")
END64_LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
MAX_COMMENT = 2**16 - 1
MAX_DIRECTORY_BYTES = 2**28
FULL16, FULL32 = 2**16 - 1, 2**32 - 1
ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
HAS_DESCRIPTOR = 1 << 3
UTF8 = 1 << 11
STORED, DEFLATED = 0, 8
UNIX, MACOS = 3, 19
DOS_FOLDER = 0x10


@dataclass(frozen=True)
class Entry:
    """A member as the central directory describes it."""

    name: str
    raw_name: bytes
    method: int
    flags: int
    crc: int
    compressed: int
    size: int
    offset: int
    is_folder: bool


def read_zip(archive: Path, extraction: Extraction) -> None:
    """Extract all files.

    Raises:
        ArchiveRefused: something is not as it must be; what was extracted until then is worthless.
    """
    with archive.open("rb") as file:
        start, entries = _directory(file, extraction)
        names = [extraction.claim(entry.name, is_folder=entry.is_folder) for entry in entries]
        places = _places(file, entries, start)
        for entry, name, place in zip(entries, names, places, strict=True):
            if not entry.is_folder:
                _extract(file, entry, place, extraction, name)


def _directory(file: BinaryIO, extraction: Extraction) -> tuple[int, list[Entry]]:
    """Where the central directory begins, and what it lists."""
    size = size_of(file)
    tail_start = max(0, size - END.size - MAX_COMMENT)
    file.seek(tail_start)
    tail = file.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) - found < END.size:
        _damaged("there is no end of a zip archive: it is cut off, or something else")
    position = tail_start + found
    _, disk, first_disk, here, count, length, start, comment = END.unpack_from(tail, found)
    if position + END.size + comment != size:
        _damaged("something follows behind the end of the archive")
    if FULL16 in (disk, first_disk, here, count) or FULL32 in (length, start):
        position, disk, first_disk, here, count, length, start = _end64(file, position)
    if disk or first_disk or here != count:
        _damaged("it is spread over several files")
    if start + length != position:
        _damaged("its directory does not end where its end begins: something stands before or between")
    if count > extraction.limits.members or length > MAX_DIRECTORY_BYTES:
        raise ArchiveRefused("too_many_members", f"the archive has more than {extraction.limits.members:,} files")
    if length < count * CENTRAL.size:
        _damaged(f"its end announces {count} members, its directory has no room for them")
    file.seek(start)
    return start, _entries(file.read(length), count)


def _end64(file: BinaryIO, position: int) -> tuple[int, int, int, int, int, int, int]:
    if position < END64_LOCATOR.size + END64.size:
        _damaged("it refers to a zip64 record that is not there")
    file.seek(position - END64_LOCATOR.size)
    magic, disk, where, disks = END64_LOCATOR.unpack(file.read(END64_LOCATOR.size))
    if magic != b"PK\6\7" or disk or disks > 1 or where + END64.size > position - END64_LOCATOR.size:
        _damaged("it refers to a zip64 record that is not there")
    file.seek(where)
    magic, length, _, _, disk, first_disk, here, count, size, start = END64.unpack(file.read(END64.size))
    if magic != b"PK\6\6" or where + 12 + length != position - END64_LOCATOR.size:
        _damaged("its zip64 record is not where it says")
    return where, disk, first_disk, here, count, size, start


def _entries(directory: bytes, count: int) -> list[Entry]:
    entries: list[Entry] = []
    at = 0
    for _ in range(count):
        if len(directory) - at < CENTRAL.size or directory[at : at + 4] != b"PK\1\2":
            _damaged(f"its directory ends after {len(entries)} of {count} members")
        entry, at = _entry(directory, at)
        entries.append(entry)
    if at != len(directory):
        _damaged(f"its directory has more than the {count} members that its end announces")
    return entries


def _entry(directory: bytes, at: int) -> tuple[Entry, int]:
    fields = CENTRAL.unpack_from(directory, at)
    _, made_by, _, flags, method, _, _, crc, compressed, size = fields[:10]
    name_length, extra_length, comment_length, disk, _, attributes, offset = fields[10:]
    at += CENTRAL.size
    stop = at + name_length + extra_length + comment_length
    if stop > len(directory):
        _damaged("a name in its directory is cut off")
    raw_name = directory[at : at + name_length]
    name = _decode(raw_name, flags)
    if disk not in (0, FULL16):
        raise ArchiveRefused("archive_damaged", "it lies in another file of a divided archive", name)
    extra = directory[at + name_length : at + name_length + extra_length]
    size, compressed, offset = _wide(extra, [size, compressed, offset], name)
    is_folder = raw_name.endswith(b"/")
    _check_kind(name, flags, method, attributes >> 16 if made_by >> 8 in (UNIX, MACOS) else 0)
    if is_folder and size:
        raise ArchiveRefused("archive_damaged", "it is a folder with content", name)
    return Entry(name, raw_name, method, flags, crc, compressed, size, offset, is_folder), stop


def _decode(raw_name: bytes, flags: int) -> str:
    if not raw_name:
        raise ArchiveRefused("odd_name", "expected a name, got none", "")
    if not flags & UTF8:
        try:
            return raw_name.decode("utf-8")  # what most programs write, flag or not
        except UnicodeDecodeError:
            return raw_name.decode("cp437")
    try:
        return raw_name.decode("utf-8")
    except UnicodeDecodeError:
        name = raw_name.decode("utf-8", "replace")
        raise ArchiveRefused("odd_name", "the name is announced as UTF-8 and is not", name) from None


def _wide(extra: bytes, values: list[int], name: str) -> list[int]:
    """Size, compressed size and offset, from the zip64 field where they do not fit into 32 bits."""
    if FULL32 not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + length]
        if kind == 1:
            wanted = [index for index, value in enumerate(values) if value == FULL32]
            if len(field) < 8 * len(wanted):
                break
            for place, index in enumerate(wanted):
                values[index] = struct.unpack_from("<Q", field, 8 * place)[0]
            return values
        at += 4 + length
    raise ArchiveRefused("archive_damaged", "its zip64 sizes are missing", name)


def _check_kind(name: str, flags: int, method: int, mode: int) -> None:
    if flags & ENCRYPTED:
        raise ArchiveRefused("encrypted", "it is encrypted", name)
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise ArchiveRefused("link", "it is a symbolic link", name)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveRefused("special_file", "expected a file or a folder, got a device, pipe or socket", name)
    if method not in (STORED, DEFLATED):
        raise ArchiveRefused("compression_method", f"expected it stored or deflated, got method {method}", name)


def _places(file: BinaryIO, entries: list[Entry], stop: int) -> list[int]:
    """Where the content of each entry begins, checked to lie between the headers of it and the next one."""
    order = sorted(range(len(entries)), key=lambda index: entries[index].offset)
    places = [0] * len(entries)
    end_before, before = 0, ""
    for index in order:
        entry = entries[index]
        if entry.offset < end_before:
            raise ArchiveRefused("overlap", f"it shares bytes of the archive with {before!r}", entry.name)
        places[index] = _content_start(file, entry, stop)
        end_before, before = places[index] + entry.compressed, entry.name
        if end_before > stop:
            message = f"it is said to have {entry.compressed:,} bytes, which the archive has no room for"
            raise ArchiveRefused("archive_damaged", message, entry.name)
    return places


def _content_start(file: BinaryIO, entry: Entry, stop: int) -> int:
    if entry.offset + LOCAL.size > stop:
        raise ArchiveRefused("archive_damaged", "it is said to lie outside of the archive", entry.name)
    file.seek(entry.offset)
    magic, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = LOCAL.unpack(
        file.read(LOCAL.size)
    )
    if magic != b"PK\3\4":
        raise ArchiveRefused("archive_damaged", "there is no member where the directory says", entry.name)
    if file.read(name_length) != entry.raw_name:
        raise ArchiveRefused("archive_damaged", "the directory and its header give it different names", entry.name)
    if method != entry.method or (flags ^ entry.flags) & (ENCRYPTED | HAS_DESCRIPTOR):
        raise ArchiveRefused("archive_damaged", "the directory and its header contradict each other", entry.name)
    if not flags & HAS_DESCRIPTOR:
        said = (entry.crc, min(entry.compressed, FULL32), min(entry.size, FULL32))
        if (crc, compressed, size) != said and FULL32 not in (compressed, size):
            raise ArchiveRefused("archive_damaged", "the directory and its header give it different sizes", entry.name)
    return entry.offset + LOCAL.size + int(name_length) + int(extra_length)


def _extract(file: BinaryIO, entry: Entry, place: int, extraction: Extraction, name: str) -> None:
    file.seek(place)
    crc = 0
    with extraction.open(name) as writer:
        for content in _content(file, entry, name):
            crc = zlib.crc32(content, crc)
            writer.write(content)
            if writer.num_bytes > entry.size:
                message = f"it has more than the {entry.size:,} bytes that the archive announces"
                raise ArchiveRefused("archive_damaged", message, name)
        if writer.num_bytes != entry.size:
            message = f"it has {writer.num_bytes:,} bytes, the archive announces {entry.size:,}"
            raise ArchiveRefused("archive_damaged", message, name)
        if crc != entry.crc:
            raise ArchiveRefused("archive_damaged", "its checksum is wrong", name)


def _content(file: BinaryIO, entry: Entry, name: str) -> Iterator[bytes]:
    """The content, in pieces of at most `CHUNK_BYTES`."""
    if entry.method == STORED:
        yield from _raw(file, entry.compressed)
        return
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in _raw(file, entry.compressed):
        while chunk:
            if inflate.eof:
                raise ArchiveRefused("archive_damaged", "something follows behind its compressed content", name)
            yield _inflated(inflate, chunk, name)
            chunk = inflate.unconsumed_tail or inflate.unused_data
    while not inflate.eof:
        content = _inflated(inflate, b"", name)
        if not content and not inflate.eof:
            raise ArchiveRefused("archive_damaged", "its content is cut off", name)
        yield content


def _raw(file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    while num_bytes:
        chunk = file.read(min(CHUNK_BYTES, num_bytes))
        num_bytes -= len(chunk)
        yield chunk


def _inflated(inflate: zlib._Decompress, chunk: bytes, name: str) -> bytes:
    try:
        return inflate.decompress(chunk, CHUNK_BYTES)
    except zlib.error as error:
        raise ArchiveRefused("archive_damaged", f"it cannot be decompressed: {error}", name) from error


def _damaged(reason: str) -> NoReturn:
    raise ArchiveRefused("archive_damaged", f"the zip archive cannot be used: {reason}")
