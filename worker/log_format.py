"""How every process writes its log: lines of text, or one JSON object a line. API keys never appear in it."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from worker.settings import Settings
from worker.store.keys import SECRET

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered, in the API."""
_JOB_ID = re.compile("job_[0-9a-z]{26}")


class TextFormatter(logging.Formatter):
    """`time level logger message`, on one line but for tracebacks."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return SECRET.sub("epk_…", super().format(record))


class JsonFormatter(logging.Formatter):
    """One object a line: `at`, `level`, `logger`, `message`, and what is known of request, job and exception.

    A field `fields` of the record is added to the object.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            **getattr(record, "fields", {}),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        if named := _JOB_ID.search(message):
            line["job_id"] = named[0]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return SECRET.sub("epk_…", json.dumps(line, ensure_ascii=True, default=str))


def configure(settings: Settings) -> None:
    """Write the log of this process to stderr, in the format of the settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # which tells at every start that nothing is to be migrated
