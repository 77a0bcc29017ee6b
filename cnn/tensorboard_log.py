"""The series of a run as an event file that TensorBoard reads, with no time in it: equal runs give equal bytes.

The file is a list of records: length, its checksum, a protocol buffer `tensorflow.Event`, its checksum. Only a few
fields of it are needed, so they are written here by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

from cnn.events import Metrics

POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, bits reversed."""
MASK = 0xA282EAD8


def event_file(metrics: Sequence[Metrics]) -> bytes:
    """A point for each deterministic series and epoch, at the epoch's last step."""
    records = [_record(_text(3, "brain.Event:2"))]
    for row in metrics:
        values = b"".join(_bytes(1, _text(1, key) + _float(2, value)) for key, value in row.values.items())
        records.append(_record(_number(2, row.step) + _bytes(5, values)))
    return b"".join(records)


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)


def _checksum(content: bytes) -> bytes:
    """The masked CRC-32C of TFRecord files."""
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF)


def crc32c(content: bytes) -> int:
    table = _table()
    crc = 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (POLYNOMIAL if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
