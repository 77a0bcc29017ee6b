"""A download that survives cuts: what came is kept beside the target, continued, verified, and only then named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

import httpx

from server.client.calls import job_path
from server.client.errors import DigestMismatch, NoSuchArtifact
from server.schemas import Artifact


class Download:
    """One artifact on its way into a file.

    Raises:
        NoSuchArtifact: the job has none of this name.
    """

    def __init__(self, job_id: str, name: str, artifacts: Iterable[Artifact], target: Path) -> None:
        there = {artifact.name: artifact for artifact in artifacts}
        if name not in there:
            raise NoSuchArtifact(
                f"expected one of the job's artifacts ({', '.join(there) or 'none yet'}), got {name!r}"
            )
        self.artifact = there[name]
        self.path = job_path(job_id, "artifacts", name)
        self._target = target
        self._part = target.with_name(f".{target.name}.{self.artifact.sha256[:16]}.part")
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self._file = self._part.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def num_bytes(self) -> int:
        """What is there by now."""
        return self._file.tell()

    @property
    def is_complete(self) -> bool:
        return self.num_bytes >= self.artifact.bytes

    def headers(self) -> dict[str, str]:
        """Ask for what is missing, if the file is still the same one."""
        if not self.num_bytes:
            return {}
        return {"Range": f"bytes={self.num_bytes}-", "If-Range": f'"{self.artifact.sha256}"'}

    def begin(self, response: httpx.Response) -> None:
        """Throw away what is there where the server does not continue it."""
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            self._file.seek(0)
            self._file.truncate()

    def write(self, block: bytes) -> None:
        self._file.write(block)

    def finish(self) -> Artifact:
        """Verify the bytes and give the file its name.

        Raises:
            DigestMismatch: they are not those that the server announced.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        with self._part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != self.artifact.sha256:
            self._part.unlink()
            raise DigestMismatch(f"{self.artifact.name}: expected SHA-256 {self.artifact.sha256}, got {sha256}")
        self._part.replace(self._target)
        return self.artifact
