"""A job that trains, as its page shows it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.watching import Watch
from tests.integration.group import LONG_JOB, Group
from tests.integration.processes import command_line, descendants, wait_until

OpenPage = Callable[..., Page]
LOSS = "[data-chart=Loss]"
SECONDS = 2.0
"""How long after a metric was recorded it may take until the chart shows it."""
SHORT_JOB: dict[str, Any] = {**LONG_JOB, "training": {"epochs": 2}}


@pytest.fixture(scope="module")
def long_job(group: Group) -> Iterator[str]:
    job_id = group.train()
    yield job_id
    group.client.post(f"/v1/jobs/{job_id}/cancel", json={"mode": "now"})
    wait_until(lambda: group.client.get(f"/v1/jobs/{job_id}").json()["terminal"], seconds=30)


def _address(group: Group, fragment: str) -> str:
    return f"{group.client.base_url}/ui/{fragment}"


def _number(page: Page, name: str) -> float:
    return float(page.locator(LOSS).get_attribute(f"data-{name}") or "nan")


def _range(page: Page) -> tuple[float, float]:
    return _number(page, "x-min"), _number(page, "x-max")


def _losses(group: Group, job_id: str) -> list[dict[str, Any]]:
    query = {"keys": "train_loss", "format": "ndjson"}
    lines = group.client.get(f"/v1/jobs/{job_id}/metrics", params=query)
    return [json.loads(line) for line in lines.text.splitlines()]


def test_a_metric_is_on_the_chart_within_two_seconds(group: Group, long_job: str, open_page: OpenPage) -> None:
    page = open_page(_address(group, f"#/jobs/{long_job}?x=step"))
    page.wait_for_selector(f"{LOSS}[data-points]")
    delays = []
    for _ in range(5):
        newest = _losses(group, long_job)[-1]["step"]
        wait_until(lambda newest=newest: _number(page, "last") > newest)  # type: ignore[misc]
        shown = _number(page, "last")
        now = datetime.now(UTC)
        (recorded,) = [point for point in _losses(group, long_job) if point["step"] == shown]
        delays.append((now - datetime.fromisoformat(recorded["at"])).total_seconds())
    print("seconds from recorded to shown:", " ".join(f"{delay:.2f}" for delay in delays))  # noqa: T201
    assert max(delays) < SECONDS


def test_zoom_and_choices_survive_updates_and_a_reload(group: Group, long_job: str, open_page: OpenPage) -> None:
    page = open_page(_address(group, f"#/jobs/{long_job}?x=step"))
    wait_until(lambda: _number(page, "points") > 5)
    page.get_by_label("log scale").check()
    box = page.locator(f"{LOSS} .u-over").bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Show all").wait_for()
    zoomed, points = _range(page), _number(page, "points")
    assert zoomed[1] < _losses(group, long_job)[-1]["step"]
    wait_until(lambda: _number(page, "points") >= points + 50, seconds=60)
    assert _range(page) == zoomed
    page.reload()
    page.wait_for_selector(f"{LOSS}[data-points]")
    assert _range(page) == pytest.approx(zoomed, rel=1e-6)
    assert page.get_by_label("log scale").is_checked()
    page.get_by_role("button", name="Show all").click()
    wait_until(lambda: _range(page)[1] > zoomed[1])


def test_after_a_restart_of_the_server_nothing_is_missing_or_doubled(
    group: Group, long_job: str, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("Failed to load resource")
    page = open_page(_address(group, f"#/jobs/{long_job}?x=step"))
    page.wait_for_selector(f"{LOSS}[data-points]")
    (pid,) = [pid for pid in descendants(group.process.pid) if re.search(r"-m server( |$)", command_line(pid))]
    before = _losses(group, long_job)[-1]["step"]
    os.kill(pid, signal.SIGKILL)
    expect(page.locator(".live")).to_have_text("connecting…")
    wait_until(group.is_ready, seconds=30)
    expect(page.locator(".live")).to_have_text("live", timeout=30_000)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".jobhead .chip")).to_have_text("paused", timeout=30_000)
    steps = [point["step"] for point in _losses(group, long_job)]
    assert steps[-1] > before
    expect(page.locator(LOSS)).to_have_attribute("data-points", str(len(set(steps))))
    expect(page.locator(LOSS)).to_have_attribute("data-last", str(steps[-1]))
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".jobhead .chip")).to_contain_text("running", timeout=30_000)


def test_filters_and_sort_are_in_the_address(group: Group, long_job: str, open_page: OpenPage) -> None:
    page = open_page(_address(group, "#/jobs"))
    page.get_by_role("button", name=re.compile("^running")).click()
    page.get_by_role("button", name="Accuracy", exact=True).click()
    page.get_by_label("Search jobs").fill("digits")
    row = page.locator(f"tr[data-id={long_job}]")
    row.wait_for()
    seen = row.locator(".progress").inner_text()
    expect(row.locator(".progress")).not_to_have_text(seen)
    page.reload()
    row.wait_for()
    assert page.get_by_role("button", name=re.compile("^running")).get_attribute("aria-pressed") == "true"
    assert page.get_by_label("Search jobs").input_value() == "digits"
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Accuracy")


def test_a_name_is_text_and_a_download_has_the_digest_of_the_api(group: Group, open_page: OpenPage) -> None:
    name = "<img src=x onerror=alert(1)>"
    running = group.client.get("/v1/jobs", params={"status": "running"}).json()["data"]
    for job in running:
        group.client.post(f"/v1/jobs/{job['id']}/cancel", json={"mode": "now"})
    job = group.client.post("/v1/jobs", json={"spec": SHORT_JOB, "name": name}).raise_for_status().json()
    page = open_page(_address(group, "#/jobs"))
    page.get_by_role("link", name=name).click()
    expect(page.locator("h1")).to_have_text(name)
    expect(page.locator(".jobhead .chip")).to_have_text("succeeded", timeout=60_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download model.safetensors").click()
    content = download.value.path().read_bytes()
    listed = group.client.get(job["links"]["artifacts"]).json()["data"]
    assert hashlib.sha256(content).hexdigest() == next(
        file["sha256"] for file in listed if file["name"] == "model.safetensors"
    )
    expect(page.locator("table.matrix tbody tr")).to_have_count(10)
    expect(page.get_by_alt_text("Training images as augmentation makes them")).to_be_visible()
    assert page.locator("img[src=x]").count() == 0
