from __future__ import annotations

import json
import logging
import sys

import pytest

from worker.log_format import JsonFormatter, TextFormatter, request_id

SECRET = "epk_" + "0123456789abcdef" * 4


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("x.y").makeRecord("x.y", logging.WARNING, "f", 1, message, args, None, extra=extra)


def test_a_record_is_one_json_object_with_the_ids_that_it_names() -> None:
    token = request_id.set("req_1")
    job_id = "job_" + "0" * 26
    line = JsonFormatter().format(record("job %s begins", job_id, fields={"seconds": 0.5}))
    request_id.reset(token)
    fields = json.loads(line)
    assert fields.pop("at").endswith("+00:00")
    assert fields == {
        "level": "warning",
        "logger": "x.y",
        "message": f"job {job_id} begins",
        "seconds": 0.5,
        "request_id": "req_1",
        "job_id": job_id,
    }
    assert "request_id" not in json.loads(JsonFormatter().format(record("idle")))


@pytest.mark.parametrize("text", ["a\r\nb", "\x1b[31mred", "\u202eright to left", "nul\0", "\ud800"])
def test_whatever_a_message_holds_it_stays_one_ascii_line(text: str) -> None:
    line = JsonFormatter().format(record("got %s", text))
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"got {text}"


def test_a_traceback_is_a_field() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    assert "ValueError: why" in json.loads(JsonFormatter().format(failed))["exception"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_keys_are_taken_out(formatter: logging.Formatter) -> None:
    line = formatter.format(record("got %s", SECRET, fields={"path": f"/{SECRET}"}))
    assert SECRET not in line
    assert "epk_" in line
