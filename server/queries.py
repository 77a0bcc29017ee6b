"""Query parameters that several routes share. Unknown parameters are refused, as unknown fields of a body are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from server.wording import quoted

MAX_LIMIT = 200
T = TypeVar("T")


class QueryParameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _split(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in value.split(",")]


Several = Annotated[tuple[T, ...], BeforeValidator(_split)]
"""Values separated by commas, or the parameter several times."""

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text without control characters, which a database need not be asked for."""
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


def _time_text(value: str) -> str:
    """Pydantic reads numbers as times too."""
    if not _RFC3339.fullmatch(value):
        raise ValueError(f"expected a time such as 2026-11-24T12:00:00Z, got {quoted(value)}")
    return value


def _clamp(time: datetime) -> datetime:
    return min(max(time, EARLIEST), LATEST)


Time = Annotated[AwareDatetime, BeforeValidator(_time_text), AfterValidator(_clamp)]
"""RFC 3339 with its offset from UTC. All times before and after all jobs mean the same."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
