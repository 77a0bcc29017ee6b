from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from worker import spool as module
from worker.spool import Spool


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spool]:
    monkeypatch.setattr(module, "MAX_LINES_IN_MEMORY", 10)
    monkeypatch.setattr(module, "CHUNK", 64)
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def rest(spool: Spool) -> list[bytes]:
    found = []
    while taken := spool.take(7):
        found += taken
    return found


@pytest.mark.parametrize("count", [0, 1, 10, 11, 1000])
def test_lines_come_out_as_they_went_in(spool: Spool, count: int) -> None:
    lines = [b"x" * (number % 200) + str(number).encode() for number in range(count)]
    for line in lines:
        spool.put(line)
    assert rest(spool) == lines
    assert spool.take(1) == []


def test_putting_and_taking_may_alternate(spool: Spool) -> None:
    random = Random(0)
    put: list[bytes] = []
    taken: list[bytes] = []
    for number in range(3000):
        for _ in range(random.randrange(4)):
            put.append(f"{number} {len(put)}".encode())
            spool.put(put[-1])
        taken += spool.take(random.randrange(4))
    assert taken + rest(spool) == put


def test_a_full_spool_says_so_until_it_is_read(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES_ON_DISK", 300)
    lines = []
    while not spool.full:
        lines.append(b"0123456789")
        spool.put(lines[-1])
    assert len(lines) == 10 + 28  # 28 lines of 11 bytes are the first to reach 300
    lines.append(b"one more is not lost")
    spool.put(lines[-1])
    assert rest(spool) == lines
    assert not spool.full


def test_what_is_on_the_disk_has_no_name_and_no_descriptor_later(spool: Spool, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        spool.put(b"line")
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before + 1
    rest(spool)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_disk_without_room_loses_no_line(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from worker.spool import MAX_LINES_IN_MEMORY, Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
spool = Spool(Path({str(tmp_path)!r}))
lines = [b"%06d" % number for number in range(MAX_LINES_IN_MEMORY + 5000 // 7 + 1)]
for line in lines[:-1]:
    spool.put(line)
assert not spool.full
spool.put(lines[-1])
assert spool.full
spool.put(b"last")
found = []
while taken := spool.take(100):
    found += taken
assert found == [*lines, b"last"]
assert not spool.full
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
