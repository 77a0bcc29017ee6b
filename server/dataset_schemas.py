"""What the API answers about uploads and datasets; for client and server, as `schemas.py` is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from server.schemas import Answer, Page


class Upload(Answer):
    """A file on its way."""

    id: str
    filename: str | None
    bytes: int
    sha256: str
    offset: int
    """How much has come: where the next part begins."""
    complete: bool
    """Whether all of it is there and has the announced digest: a dataset can be registered from it."""
    created_at: datetime
    expires_at: datetime
    """When it is removed if nothing more comes of it."""


class Finding(Answer):
    """Something about a dataset that is wrong, or may be."""

    code: str
    severity: str
    """`error`: the dataset is refused; `warning`: it is as its files say, which may not be what was meant."""
    message: str
    files: tuple[str, ...]
    """The first ones that it is about, by their names in the upload."""
    count: int
    """How many it is about."""


class SplitReport(Answer):
    num_images: int
    per_class: dict[str, int]


class Report(Answer):
    """What validation found."""

    findings: tuple[Finding, ...]
    splits: dict[str, SplitReport]
    sizes: dict[str, int]
    """How many images came in each size, such as `28x28` (height x width); the most frequent ones."""
    num_ignored: int
    """Files that are no part of it: hidden ones, and what systems leave in archives."""


class DatasetContent(Answer):
    digest: str
    shape: tuple[int, int, int]
    """Channels, height and width."""
    labels: tuple[str, ...]
    num_train: int
    num_test: int


class Dataset(Answer):
    """What was uploaded, and what became of it."""

    id: str
    name: str
    status: str
    """`validating`, `ready` or `refused`."""
    format: dict[str, Any]
    """The format of the upload, and how it is read."""
    upload_sha256: str
    content: DatasetContent | None
    """What a network learns from; null unless `ready`."""
    bytes: int | None
    """Room that it takes on the server's disk."""
    report: Report | None
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class DatasetPage(Page[Dataset]):
    """Datasets, newest first."""
