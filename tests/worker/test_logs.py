from __future__ import annotations

import os
from pathlib import Path

from worker.logs import log_path, open_log, tail


def test_attempts_share_a_file_and_are_told_apart(tmp_path: Path) -> None:
    path = log_path(tmp_path, "job_1")
    for attempt in (1, 2):
        descriptor = open_log(path, attempt)
        os.write(descriptor, f"line of {attempt}\n".encode())
        os.close(descriptor)
    lines = path.read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["--- attempt 1", "line of 1", "--- attempt 2", "line of 2"]


def test_a_tail_has_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("".join(f"{number}\n" for number in range(200)))
    assert tail(path, 3) == ("197", "198", "199")
    assert len(tail(path)) == 50


def test_a_tail_of_long_lines_begins_at_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("".join(f"{number:05}{'x' * 9995}\n" for number in range(10)))
    assert [line[:5] for line in tail(path)] == ["00004", "00005", "00006", "00007", "00008", "00009"]


def test_a_tail_is_text_that_every_database_stores(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"a\0b\xff\n")
    assert tail(path) == ("a\ufffdb\ufffd",)
