"""What validation says about a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from worker.datasets.naming import quoted

MAX_FILES = 20
MAX_SIZES = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be; `files` are the first of the `count` that it is about."""

    code: str
    severity: Literal["error", "warning"]
    message: str
    files: tuple[str, ...] = ()
    count: int = 0


@dataclass
class Report:
    """What a user reads of a validation, ready or refused."""

    findings: list[Finding] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each: `num_images`, and `per_class` by label."""
    sizes: dict[str, int] = field(default_factory=dict)
    num_ignored: int = 0

    def error(self, code: str, message: str, files: Sequence[str] = ()) -> None:
        self.findings.append(Finding(code, "error", _message(message, files), tuple(files[:MAX_FILES]), len(files)))

    def warning(self, code: str, message: str, files: Sequence[str] = ()) -> None:
        self.findings.append(Finding(code, "warning", _message(message, files), tuple(files[:MAX_FILES]), len(files)))

    @property
    def refused(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def stop_if_refused(self) -> None:
        """Raises Refused where something that follows would make no sense any more."""
        if self.refused:
            raise Refused

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Refused(Exception):
    """The report says why."""


def _message(message: str, files: Sequence[str]) -> str:
    """With the first names, so that the sentence alone is enough to find them."""
    if not files:
        return message
    named = ", ".join(map(quoted, files[:3]))
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"{message}: {named}{more}"
