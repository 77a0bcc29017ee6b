"""Datasets of one's own: `client.datasets.upload(path)`, then `register`, then a spec with `registered`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.client import uploading
from server.client.errors import ClientError
from server.client.following import POLL_SECONDS
from server.client.uploading import Upload
from server.dataset_schemas import Dataset
from server.dataset_schemas import Upload as Uploaded

if TYPE_CHECKING:
    from server.client.asynchronous import AsyncClient
    from server.client.synchronous import Client

PATIENCE_SECONDS = 60.0


class Datasets:
    """What a client can do about datasets."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def upload(
        self, path: Path, *, filename: str | None = None, patience_seconds: float = PATIENCE_SECONDS
    ) -> Uploaded:
        """Send a file in parts, each verified by its digest, and the whole too.

        What has come is found again by the digest of the file, also by another process: an upload that was interrupted
        goes on where it was when it is asked for again.
        """
        with Upload(path, filename, patience_seconds) as upload:
            call = upload.announce()
            while True:
                try:
                    answer = self._client._once(call)
                except ClientError as error:
                    time.sleep(upload.lost(error))
                    call = upload.announce()
                else:
                    if answer.complete:
                        return answer
                    call = upload.part(answer)

    def register(self, upload_id: str, *, name: str, format: Mapping[str, Any]) -> Dataset:
        """Make a dataset of an upload; `format` is such as `{"type": "image_folder", "test_fraction": 0.2}`."""
        return self._client._send(uploading.register(upload_id, name, format))

    def get(self, dataset_id: str) -> Dataset:
        return self._client._send(uploading.get(dataset_id))

    def wait(self, dataset_id: str, *, poll_seconds: float = POLL_SECONDS) -> Dataset:
        """The dataset once its validation is done: `ready`, or `refused` with a report."""
        while (dataset := self.get(dataset_id)).status == "validating":
            time.sleep(poll_seconds)
        return dataset

    def list(self, *, statuses: Sequence[str] = ()) -> Iterator[Dataset]:
        """All datasets, newest first, page by page."""
        return self._client._items(uploading.list_datasets(statuses))

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset that no job needs any more."""
        self._client._send(uploading.delete(dataset_id))

    def samples(
        self,
        dataset_id: str,
        *,
        augmentation: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
        poll_seconds: float = POLL_SECONDS,
    ) -> bytes:
        """A PNG of training images; with a spec's `augmentation`, as the network will see them."""
        while (sheet := self._client._send(uploading.samples(dataset_id, augmentation, seed))) is None:
            time.sleep(poll_seconds)
        return sheet


class AsyncDatasets:
    """The methods of `Datasets`, awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def upload(
        self, path: Path, *, filename: str | None = None, patience_seconds: float = PATIENCE_SECONDS
    ) -> Uploaded:
        """As `Datasets.upload`."""
        with await asyncio.to_thread(Upload, path, filename, patience_seconds) as upload:
            call = upload.announce()
            while True:
                try:
                    answer = await self._client._once(call)
                except ClientError as error:
                    await asyncio.sleep(upload.lost(error))
                    call = upload.announce()
                else:
                    if answer.complete:
                        return answer
                    call = await asyncio.to_thread(upload.part, answer)

    async def register(self, upload_id: str, *, name: str, format: Mapping[str, Any]) -> Dataset:
        """Make a dataset of an upload; `format` is such as `{"type": "image_folder", "test_fraction": 0.2}`."""
        return await self._client._send(uploading.register(upload_id, name, format))

    async def get(self, dataset_id: str) -> Dataset:
        return await self._client._send(uploading.get(dataset_id))

    async def wait(self, dataset_id: str, *, poll_seconds: float = POLL_SECONDS) -> Dataset:
        """The dataset once its validation is done: `ready`, or `refused` with a report."""
        while (dataset := await self.get(dataset_id)).status == "validating":
            await asyncio.sleep(poll_seconds)
        return dataset

    def list(self, *, statuses: Sequence[str] = ()) -> AsyncIterator[Dataset]:
        """All datasets, newest first, page by page."""
        return self._client._items(uploading.list_datasets(statuses))

    async def delete(self, dataset_id: str) -> None:
        """Delete a dataset that no job needs any more."""
        await self._client._send(uploading.delete(dataset_id))

    async def samples(
        self,
        dataset_id: str,
        *,
        augmentation: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
        poll_seconds: float = POLL_SECONDS,
    ) -> bytes:
        """A PNG of training images; with a spec's `augmentation`, as the network will see them."""
        while (sheet := await self._client._send(uploading.samples(dataset_id, augmentation, seed))) is None:
            await asyncio.sleep(poll_seconds)
        return sheet
