"""The event file, against the published check value of CRC-32C and by hand; and by a reader that knows the format."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cnn.events import Metrics
from cnn.tensorboard_log import crc32c, event_file

METRICS = [
    Metrics(1, 10, {"train_loss": 0.5, "lr": 0.25}, {"seconds": 3.0}),
    Metrics(2, 300, {"train_loss": float("inf")}, {"seconds": 3.0}),
]


def fields(message: bytes) -> list[tuple[int, Any]]:
    """Field numbers and values of a protocol buffer: integers, 32-bit floats and bytes."""
    found: list[tuple[int, Any]] = []
    while message:
        key, message = varint(message)
        match key & 7:
            case 0:
                value, message = varint(message)
                found.append((key >> 3, value))
            case 2:
                size, message = varint(message)
                found.append((key >> 3, message[:size]))
                message = message[size:]
            case 5:
                found.append((key >> 3, struct.unpack("<f", message[:4])[0]))
                message = message[4:]
    return found


def varint(message: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(message):
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, message[index + 1 :]
    raise ValueError("the number has no end")


def records(content: bytes) -> list[bytes]:
    """The records, each of whose checksums is checked."""
    found = []
    while content:
        [size] = struct.unpack("<Q", content[:8])
        record = content[12 : 12 + size]
        for part, checksum in ((content[:8], content[8:12]), (record, content[12 + size : 16 + size])):
            [masked] = struct.unpack("<I", checksum)
            rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
            assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == crc32c(part)
        found.append(record)
        content = content[16 + size :]
    return found


def test_the_check_value_of_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4, and the catalogue of CRC algorithms


def test_every_point_is_in_the_file() -> None:
    version, first, second = records(event_file(METRICS))
    assert fields(version) == [(3, b"brain.Event:2")]
    for record, metrics in ((first, METRICS[0]), (second, METRICS[1])):
        (step_field, step), (summary_field, summary) = fields(record)
        assert (step_field, step, summary_field) == (2, metrics.step, 5)
        points = [dict(fields(value)) for _, value in fields(summary)]
        assert {point[1].decode(): point[2] for point in points} == pytest.approx(dict(metrics.values))


def test_what_the_clock_said_is_not_in_it() -> None:
    other = [Metrics(row.epoch, row.step, row.values, {"seconds": 99.0}) for row in METRICS]
    assert event_file(other) == event_file(METRICS)
    assert b"seconds" not in event_file(METRICS)
