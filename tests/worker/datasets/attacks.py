"""Archives built byte by byte: zip and tar files that the standard library would not write."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass, field


@dataclass
class Zipped:
    """A member of a zip archive; what is None is computed honestly."""

    name: bytes
    content: bytes = b"content"
    method: int = 0
    flags: int = 0
    size: int | None = None
    compressed: int | None = None
    crc: int | None = None
    mode: int = 0o100644
    local_name: bytes | None = None
    offset: int | None = None
    local_size: int | None = None
    data: bytes | None = None
    """What stands in the archive."""
    extra: bytes = b""

    @property
    def stored(self) -> bytes:
        if self.data is not None:
            return self.data
        if self.method == 0:
            return self.content
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(self.content) + deflate.flush()


@dataclass
class ZipFile:
    members: list[Zipped] = field(default_factory=list)
    count: int | None = None
    prefix: bytes = b""
    between: bytes = b""
    suffix: bytes = b""
    disk: int = 0

    def build(self) -> bytes:
        body, directory = bytearray(self.prefix), bytearray()
        for member in self.members:
            offset = len(body) if member.offset is None else member.offset
            size = len(member.content) if member.size is None else member.size
            compressed = len(member.stored) if member.compressed is None else member.compressed
            crc = zlib.crc32(member.content) if member.crc is None else member.crc
            local_name = member.name if member.local_name is None else member.local_name
            local_size = size if member.local_size is None else member.local_size
            if member.offset is None:
                head = (20, member.flags, member.method, 0, 0, crc, compressed, local_size, len(local_name), 0)
                body += struct.pack("<4s5H3L2H", b"PK\3\4", *head) + local_name + member.stored
            sizes = (crc, compressed, size, len(member.name), len(member.extra), 0, 0, 0, member.mode << 16, offset)
            fixed = (3 << 8 | 20, 20, member.flags, member.method, 0, 0)
            directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fixed, *sizes) + member.name + member.extra
        body += self.between
        count = len(self.members) if self.count is None else self.count
        end = (self.disk, self.disk, count, count, len(directory), len(body), 0)
        return bytes(body + directory + struct.pack("<4s4H2LH", b"PK\5\6", *end)) + self.suffix


def zipped(*members: Zipped, **fields: object) -> bytes:
    return ZipFile(list(members), **fields).build()  # type: ignore[arg-type]


def header(name: bytes, size: int, kind: bytes = b"0", /, **fields: bytes) -> bytes:
    """A ustar header; `fields` overwrite parts of it: `size`, `link`, `checksum`."""
    block = bytearray(512)
    block[:100] = name[:100].ljust(100, b"\0")
    block[100:108] = b"0000644\0"
    block[124:136] = fields.get("size", b"%011o\0" % size)
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = fields.get("link", b"").ljust(100, b"\0")
    block[257:265] = b"ustar\x0000"
    block[148:156] = fields.get("checksum", b"%06o\0 " % sum(block))
    return bytes(block)


def tarred(name: bytes, content: bytes = b"content", kind: bytes = b"0", /, **fields: bytes) -> bytes:
    return header(name, len(content), kind, **fields) + content + bytes(-len(content) % 512)


def pax(**records: str) -> bytes:
    content = b""
    for key, value in records.items():
        record = f" {key}={value}\n".encode()
        length = len(record) + 2 if len(record) + 2 < 100 else len(record) + 3
        content += str(length).encode() + record
    return tarred(b"PaxHeaders/0", content, b"x")


def tar(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def tgz(*members: bytes) -> bytes:
    return gzip.compress(tar(*members), mtime=0)
