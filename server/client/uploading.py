"""An upload that survives cuts, and what is asked about datasets, without sending anything: both clients share this."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from server.client.calls import Call, Listing
from server.client.errors import ClientError, Conflict, InvalidRequest
from server.client.following import RECONNECT_SECONDS, Patience
from server.dataset_schemas import Dataset, DatasetPage
from server.dataset_schemas import Upload as Answer

PART_BYTES: Final = 8 * 2**20
MEDIA_TYPE: Final = "application/offset+octet-stream"
MAX_FAILURES: Final = 20
NOT_YET: Final = httpx.codes.ACCEPTED


class Upload:
    """One file on its way to the server. It is announced by its digest, so that nothing has to be remembered of it.

    Every call is answered by how much has come; after one that failed, the announcement is made again.
    """

    def __init__(self, path: Path, filename: str | None, patience_seconds: float) -> None:
        self._file = path.open("rb")
        self._body = {
            "bytes": os.fstat(self._file.fileno()).st_size,
            "sha256": hashlib.file_digest(self._file, "sha256").hexdigest(),
            "filename": filename or path.name,
        }
        self._patience = Patience(patience_seconds)
        self._failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def announce(self) -> Call[Answer]:
        """What of it is there already?"""
        return Call(_upload, "POST", "/v1/uploads", self._body)

    def part(self, answer: Answer) -> Call[Answer]:
        """The next part."""
        self._patience.heard()
        self._file.seek(answer.offset)
        part = self._file.read(PART_BYTES)
        digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
        headers = {
            "Content-Type": MEDIA_TYPE,
            "Upload-Offset": str(answer.offset),
            "Content-Digest": f"sha-256=:{digest}:",
        }
        return Call(_upload, "PATCH", upload_path(answer.id), content=part, headers=headers)

    def lost(self, error: ClientError) -> float:
        """Seconds after which to look what has come; raises the error where that is too late, or useless."""
        damaged = isinstance(error, InvalidRequest) and error.problem["code"] == "digest_mismatch"
        if damaged or isinstance(error, Conflict):  # bytes that changed on the way, or a part whose answer was lost
            self._failures += 1
            if self._failures <= MAX_FAILURES:
                return RECONNECT_SECONDS
        return self._patience.lost(error)


def upload_path(upload_id: str) -> str:
    return f"/v1/uploads/{quote(upload_id, safe='')}"


def dataset_path(dataset_id: str) -> str:
    return f"/v1/datasets/{quote(dataset_id, safe='')}"


def register(upload_id: str, name: str, format: Mapping[str, Any]) -> Call[Dataset]:
    body = {"upload_id": upload_id, "name": name, "format": format}
    return Call(_dataset, "POST", "/v1/datasets", body, headers={"Idempotency-Key": secrets.token_hex(16)})


def get(dataset_id: str) -> Call[Dataset]:
    return Call(_dataset, "GET", dataset_path(dataset_id))


def delete(dataset_id: str) -> Call[None]:
    return Call(lambda _: None, "DELETE", dataset_path(dataset_id), is_repeatable=False)


def list_datasets(statuses: Sequence[str]) -> Listing[Dataset]:
    return Listing(DatasetPage, "/v1/datasets", "cursor", {"status": ",".join(statuses)} if statuses else {})


def samples(dataset_id: str, augmentation: Sequence[Mapping[str, Any]] | None, seed: int) -> Call[bytes | None]:
    """The sheet; None while it is still to be drawn."""
    params: dict[str, str | int] = {}
    if augmentation is not None:
        params = {"augmentation": json.dumps(augmentation), "seed": seed}
    return Call(
        lambda response: None if response.status_code == NOT_YET else response.content,
        "GET",
        f"{dataset_path(dataset_id)}/samples",
        params=params,
    )


def _upload(response: httpx.Response) -> Answer:
    return Answer.model_validate_json(response.content)


def _dataset(response: httpx.Response) -> Dataset:
    return Dataset.model_validate_json(response.content)
