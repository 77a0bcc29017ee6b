from __future__ import annotations

import threading
from collections import Counter

import httpx
import pytest

from cnn.spec import TrainingSpec
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server
from tests.worker.many_jobs import fill

LIMIT = 200


@pytest.mark.parametrize("number", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_walk_among_new_jobs_sees_each_old_one_once(server: Server, seed: Seed, number: int) -> None:
    old = set(fill(seed.database, TrainingSpec.model_validate(SPEC), number, lambda _: {}))
    done = threading.Event()
    submitted: list[str] = []

    def submit() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while not done.is_set():
                submitted.append(http.post("/v1/jobs", json={"spec": SPEC}).raise_for_status().json()["id"])

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        seen = Counter(walk(server.url))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(submitted) > number / LIMIT / 4  # or nothing happened beside the walk
    assert old <= seen.keys() <= old | set(submitted)
    assert set(seen.values()) == {1}


def walk(url: str) -> list[str]:
    """The ids of all pages."""
    found: list[str] = []
    with httpx.Client(base_url=url, timeout=60) as http:
        query: dict[str, str | int] = {"limit": LIMIT}
        while True:
            page = http.get("/v1/jobs", params=query).raise_for_status().json()
            found += [job["id"] for job in page["data"]]
            if not page["has_more"]:
                return found
            query["cursor"] = page["next_cursor"]
