"""A client that keeps a history: what it asked for, what it was promised, and what it has seen since."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from cnn.spec import TrainingSpec

PATIENCE_SECONDS = 60.0


@dataclass
class Promise:
    """A job that was accepted under a name that no other job has."""

    id: str
    name: str
    terminal: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    """Those read so far, each page from where the one before ended."""
    sightings: list[tuple[int, str]] = field(default_factory=list)
    """Attempt and status, whenever one of them was new."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each artifact that was announced, by name."""


class Client:
    """Asks again when no answer comes, as long as that makes sense: parts of the server are killed meanwhile."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=5)
        self.asked: set[str] = set()
        """The names of all jobs that may exist."""
        self.promises: dict[str, Promise] = {}
        self.may_not_succeed: set[str] = set()
        """The ids of the jobs that are not meant to succeed."""
        self.complaints: list[str] = []

    def close(self) -> None:
        self._http.close()

    def submit(self, name: str, spec: TrainingSpec) -> str:
        """Ask for a job until it is promised; the id. The same key makes all that asking one wish."""
        self.asked.add(name)
        body = {"name": name, "spec": spec.model_dump(mode="json")}
        response = self._persist("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": name.replace(" ", "_")})
        return self.promise(name, response["id"])

    def promise(self, name: str, job_id: str) -> str:
        """Note a job that was accepted on another way."""
        self.asked.add(name)
        if job_id in self.promises:
            self.complaints.append(f"I3: {name} and {self.promises[job_id].name} were answered with one id")
        self.promises[job_id] = Promise(job_id, name)
        return job_id

    def cancel(self, job_id: str, *, now: bool = False) -> None:
        self._persist("POST", f"/v1/jobs/{job_id}/cancel", json={"mode": "now" if now else "graceful"})

    def retry(self, job_id: str) -> None:
        self._persist("POST", f"/v1/jobs/{job_id}/retry", json={"from": "checkpoint"})
        promise = self.promises[job_id]
        promise.terminal = False
        promise.sightings.clear()

    def look(self) -> None:
        """Look once at every job that was not seen to end, where the server answers."""
        for promise in self.promises.values():
            if not promise.terminal:
                with suppress(httpx.TransportError, _Unavailable):
                    self._look_at(promise)

    def finish(self) -> None:
        """Look at everything once more, with a server that answers."""
        for promise in self.promises.values():
            self._look_at(promise)

    def _look_at(self, promise: Promise) -> None:
        job = self._get(f"/v1/jobs/{promise.id}")
        sighting = job["attempt"], job["status"]
        if not promise.sightings or promise.sightings[-1] != sighting:
            self._judge(promise, sighting)
            promise.sightings.append(sighting)
        promise.terminal = job["terminal"]
        promise.events += self._pages(
            f"/v1/jobs/{promise.id}/events", promise.events[-1]["id"] if promise.events else 0
        )
        for artifact in self._get(f"/v1/jobs/{promise.id}/artifacts")["data"]:
            known = promise.artifacts.setdefault(artifact["name"], artifact["sha256"])
            if known != artifact["sha256"]:
                self.complaints.append(f"I6: {artifact['name']} of {promise.name} has changed")

    def _judge(self, promise: Promise, sighting: tuple[int, str]) -> None:
        if not promise.sightings:
            return
        attempt, status = promise.sightings[-1]
        if sighting[0] < attempt:
            self.complaints.append(f"I5: the attempt of {promise.name} fell from {attempt} to {sighting[0]}")
        if status in ("succeeded", "failed", "cancelled"):
            self.complaints.append(f"I4: {promise.name} was {status}, then {sighting[1]}")

    def _pages(self, path: str, after: int) -> Iterator[dict[str, Any]]:
        while True:
            page = self._get(path, after=after, limit=200)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["next_cursor"]

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return _content(self._http.get(path, params=params))

    def _persist(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return _content(self._http.request(method, path, **options))
            except (httpx.TransportError, _Unavailable):
                assert time.monotonic() < deadline, f"{method} {path} was not answered for {PATIENCE_SECONDS:g} s"
                time.sleep(0.1)


class _Unavailable(Exception):
    """The server cannot answer now."""


def _content(response: httpx.Response) -> dict[str, Any]:
    if response.status_code in (502, 503, 504):
        raise _Unavailable(response.text)
    assert response.is_success, f"{response.request.method} {response.request.url}: {response.text}"
    content: dict[str, Any] = response.json()
    return content
