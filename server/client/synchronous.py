"""The client for ordinary code."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from server.client import calls
from server.client.calls import (
    DEFAULT_URL,
    Action,
    Call,
    Item,
    Listing,
    OnDomainChange,
    OnDuplicate,
    T,
    job_path,
    retry_delay,
)
from server.client.datasets import Datasets
from server.client.download import Download
from server.client.errors import ClientError, Unreachable, raise_for_problem
from server.client.following import POLL_SECONDS, RECONNECT_SECONDS, EventReader, LogReader, Patience, Waiting
from server.client.webhooks import Webhooks
from server.operation_schemas import Worker
from server.plan_schemas import Plan
from server.prediction_schemas import DEFAULT_TOP_K, Layout, Predictions
from server.schemas import Artifact, Attempt, BatchResult, Event, Job, LoggedEvent, MetricPoint

E = TypeVar("E", bound=Event)
PATIENCE_SECONDS = 60.0


class Client:
    """Talks to one server. What was not answered, or with 429 or 5xx, is sent again a few times.

    Args:
        base_url: where the server is.
        api_key: sent as a bearer token.
        timeout: seconds for each connect, read and write.
        transport: replaces the network, for tests.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._timeout = timeout
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout, transport=transport)
        self.datasets = Datasets(self)
        self.webhooks = Webhooks(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self,
        spec: Mapping[str, Any],
        *,
        name: str | None = None,
        priority: int = 0,
        tags: Sequence[str] = (),
        on_duplicate: OnDuplicate = "create",
        on_domain_change: OnDomainChange = "wait",
        max_runtime_seconds: int | None = None,
    ) -> Job:
        """Ask for a job; `spec` is a `TrainingSpec` as JSON. One call makes one job, however often it must be sent."""
        options = {
            "name": name,
            "priority": priority,
            "tags": tags,
            "limits": {"max_runtime_seconds": max_runtime_seconds},
            "on_duplicate": on_duplicate,
            "on_domain_change": on_domain_change,
        }
        return self._send(calls.submit(spec, options))

    def plan(self, spec: Mapping[str, Any]) -> Plan:
        """What a job would cost, when it would start, and what may be wrong with its spec; nothing is stored."""
        return self._send(calls.plan(spec))

    def get(self, job_id: str) -> Job:
        return self._send(calls.get(job_id))

    def list(
        self,
        *,
        statuses: Sequence[str] = (),
        name: str | None = None,
        tags: Sequence[str] = (),
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[Job]:
        """All jobs that fit, newest first, page by page."""
        return self._items(calls.list_jobs(statuses, name, tags, created_after, created_before))

    def wait(self, job_id: str, *, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[Job]:
        """The job each time that it has changed, until it is terminal.

        A server that is away meanwhile, as during a restart, is waited for up to `patience_seconds`.
        """
        waiting, patience = Waiting(job_id), Patience(patience_seconds)
        while True:
            try:
                job = self._once(waiting.call())
            except ClientError as error:
                time.sleep(patience.lost(error))
                continue
            patience.heard()
            if job is not None:
                yield job
                if job.terminal:
                    return
            time.sleep(waiting.pause_seconds)

    def cancel(self, job_id: str, *, now: bool = False) -> Job:
        """Cancel a job; with `now` its trainer is killed instead of asked to stop."""
        return self._send(calls.ask(job_id, "cancel", {"mode": "now" if now else "graceful"}))

    def pause(self, job_id: str) -> Job:
        """Let a job rest: a running one at its next checkpoint."""
        return self._send(calls.ask(job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        return self._send(calls.ask(job_id, "resume"))

    def retry(self, job_id: str, *, scratch: bool = False) -> Job:
        """Queue a failed or cancelled job again, from its newest checkpoint or from scratch."""
        return self._send(calls.ask(job_id, "retry", {"from": "scratch" if scratch else "checkpoint"}))

    def change(self, job_id: str, **values: Any) -> Job:
        """Set `name`, `priority` or `tags`."""
        return self._send(calls.change(job_id, values))

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with all its files."""
        self._send(calls.delete(job_id))

    def batch(self, action: Action, ids: Sequence[str], **options: str) -> tuple[BatchResult, ...]:
        """Do the same to up to 200 jobs; `options` are `mode` (cancel) and `from` (retry)."""
        return self._send(calls.batch(action, ids, options))

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        return tuple(self._items(calls.list_attempts(job_id)))

    def metrics(self, job_id: str, *, keys: Sequence[str] = (), from_step: int | None = None) -> Iterator[MetricPoint]:
        """Every point of the series, by step."""
        return self._items(calls.list_metrics(job_id, keys, from_step))

    def events(self, job_id: str, *, after: int = 0, types: Sequence[str] = ()) -> Iterator[Event]:
        """The events there are by now, from the one behind `after` on."""
        return self._items(calls.list_events(job_id, after, types))

    def follow_events(
        self, job_id: str, *, after: int = 0, types: Sequence[str] = (), patience_seconds: float = PATIENCE_SECONDS
    ) -> Iterator[Event]:
        """The events behind `after` and those to come, each once and in order, until the job is terminal."""
        reader = EventReader(Event, job_path(job_id, "events"), after, types)
        return self._follow(reader, Patience(patience_seconds))

    def follow_all_events(
        self, *, after: int | None = None, types: Sequence[str] = (), patience_seconds: float = PATIENCE_SECONDS
    ) -> Iterator[LoggedEvent]:
        """The events of all jobs from now on, or behind number `after`, each once; never ends."""
        return self._follow(EventReader(LoggedEvent, "/v1/events", after, types), Patience(patience_seconds))

    def logs(self, job_id: str, *, tail: int | None = None) -> str:
        """The log of all attempts, or its last `tail` lines."""
        return self._send(calls.logs(job_id, tail))

    def follow_logs(self, job_id: str, *, poll_seconds: float = POLL_SECONDS) -> Iterator[str]:
        """The log as it grows, until the job is terminal."""
        reader = LogReader(job_id)
        while True:
            terminal = self.get(job_id).terminal
            if text := self._send(reader.call()):
                yield text
            elif terminal:
                return
            else:
                time.sleep(poll_seconds)

    def workers(self) -> tuple[Worker, ...]:
        """The workers that were seen within a day."""
        return tuple(self._items(calls.list_workers()))

    def predict(
        self,
        job_id: str,
        images: Sequence[Path | bytes],
        *,
        top_k: int = DEFAULT_TOP_K,
        layout: Layout | None = None,
    ) -> Predictions:
        """What the job's network says of images: the `top_k` most probable classes of each.

        Args:
            images: files or their bytes; PNG, JPEG, WEBP, BMP, or arrays of uint8 as NPY or NPZ.
            layout: axes of arrays; None to tell them by the size of the network's images.
        """
        return self._send(calls.predict(job_id, images, top_k, layout))

    def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        return tuple(self._items(calls.list_artifacts(job_id)))

    def download(self, job_id: str, name: str, target: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> Artifact:
        """Fetch an artifact, verify its SHA-256, and only then give it the name `target`.

        What an interrupted download left beside the target is continued, also when it is interrupted again.

        Raises:
            NoSuchArtifact: the job has none of this name.
            DigestMismatch: the bytes are not those that the server announced.
        """
        patience = Patience(patience_seconds)
        with Download(job_id, name, self.artifacts(job_id), target) as download:
            while not download.is_complete:
                try:
                    with self._stream(download.path, headers=download.headers()) as response:
                        download.begin(response)
                        for block in response.iter_bytes():
                            patience.heard()
                            download.write(block)
                except ClientError as error:
                    time.sleep(patience.lost(error))
            return download.finish()

    def _follow(self, reader: EventReader[E], patience: Patience) -> Iterator[E]:
        while not reader.has_ended:
            try:
                with self._stream(reader.path, **reader.options()) as response:
                    for text in response.iter_text():
                        patience.heard()
                        yield from reader.feed(text)
            except ClientError as error:
                time.sleep(patience.lost(error))
            else:
                time.sleep(RECONNECT_SECONDS)  # the server ended it, such as before a restart

    def _items(self, listing: Listing[Item]) -> Iterator[Item]:
        cursor = None
        while True:
            page = self._send(listing.page(cursor))
            yield from page.data
            if not page.has_more:
                return
            cursor = page.next_cursor

    def _send(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            try:
                return self._once(call)
            except ClientError as error:
                attempt += 1
                delay = retry_delay(call, error, attempt)
                if delay is None:
                    raise
                time.sleep(delay)

    def _once(self, call: Call[T]) -> T:
        with self._translated():
            response = self._http.request(call.method, call.path, **call.options(self._timeout))
        return call.answer(response)

    @contextmanager
    def _stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        with self._translated(), self._http.stream("GET", path, **options) as response:
            if response.is_error:
                response.read()
            raise_for_problem(response)
            yield response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(str(self._http.base_url), reason) from error
