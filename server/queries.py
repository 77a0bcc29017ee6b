"""Query parameters that several routes share. Unknown parameters are refused, as unknown fields of a body are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

MAX_LIMIT = 200
T = TypeVar("T")


class QueryParameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _split(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in value.split(",") if part]


Several = Annotated[tuple[T, ...], BeforeValidator(_split)]
"""Values separated by commas, or the parameter several times."""

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text without control characters, which a database need not be asked for."""
Time = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))]
"""RFC 3339 with its offset from UTC."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
