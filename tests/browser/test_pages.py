"""Submitting, keys, speed with many jobs, and pictures of it all."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from sqlalchemy import insert, select

from server.app import create_app
from tests.browser.watching import Watch
from tests.integration.group import LONG_JOB, Group
from tests.integration.processes import wait_until
from tests.server.seeding import Seed
from tests.server.serving import Server, serving
from worker.jobs import JobStatus
from worker.settings import Settings
from worker.store import attempts, keys, tables
from worker.store.database import Database
from worker.store.keys import Scope

OpenPage = Callable[..., Page]
NUM_JOBS, NUM_SERIES = 500, 20
SECONDS = 1.0
"""What a list of 500 jobs, and one of them, may take until they are there."""
SLACK = 4.0
"""How many times longer on a machine that does other things besides."""


def test_an_example_is_submitted_and_watched_with_the_mouse_alone(group: Group, open_page: OpenPage) -> None:
    page = open_page(f"{group.client.base_url}/ui/")
    page.get_by_role("link", name="New job").click()
    page.get_by_role("button", name="Digits", exact=True).click()
    page.get_by_role("button", name="Train it").click()
    expect(page.locator(".jobhead .chip")).to_have_text("succeeded", timeout=60_000)
    page.wait_for_selector("[data-chart=Loss][data-points]", timeout=60_000)


def test_a_job_is_cloned_watched_and_cancelled_with_the_mouse_alone(group: Group, open_page: OpenPage) -> None:
    job = group.client.post("/v1/jobs", json={"spec": LONG_JOB, "name": "long"}).raise_for_status().json()
    group.client.post(f"{job['links']['self']}/cancel", json={"mode": "now"}).raise_for_status()
    wait_until(lambda: group.client.get(job["links"]["self"]).json()["terminal"], seconds=30)
    page = open_page(f"{group.client.base_url}/ui/")
    page.get_by_role("link", name="long", exact=True).click()
    page.get_by_role("link", name="Clone").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("long")
    page.get_by_role("button", name="Train it").click()
    expect(page.locator(".jobhead .chip")).to_contain_text("training", timeout=60_000)
    page.wait_for_selector("[data-chart=Loss][data-points]", timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".jobhead .chip")).to_have_text("cancelled", timeout=60_000)
    clone = group.client.get(f"/v1/jobs/{page.url.rpartition('/')[2]}").json()
    assert (clone["status"], clone["spec"]) == ("cancelled", job["spec"])
    assert clone["id"] != job["id"]


def test_what_is_typed_or_chosen_last_stays_when_an_example_comes_late(server: Server, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}/ui/#/new")
    editor = page.get_by_label("Spec", exact=True).and_(page.locator("textarea"))
    expect(editor).to_have_value(re.compile("digits"))
    held: list[Route] = []
    page.route("**/examples/*.json", lambda route: held.append(route))

    def ask(title: str) -> Route:
        with page.expect_request("**/examples/*.json"):
            page.get_by_role("button", name=title, exact=True).click()
        wait_until(lambda: page.evaluate("true") and bool(held), seconds=10)
        return held.pop()

    def answer(route: Route) -> None:
        with page.expect_request_finished():
            route.continue_()
        page.wait_for_timeout(200)  # for what the page does with it

    earlier, later = ask("Fashion, fast"), ask("Fashion, residual")
    answer(later)
    answer(earlier)
    expect(editor).to_have_value(re.compile("residual"))
    late = ask("Digits")
    editor.fill(json.dumps(LONG_JOB))
    answer(late)
    assert json.loads(editor.input_value()) == LONG_JOB


def test_a_fault_is_shown_at_its_place_and_mended_by_a_click(group: Group, open_page: OpenPage, watch: Watch) -> None:
    watch.allow("status of 422")
    page = open_page(f"{group.client.base_url}/ui/#/new")
    editor = page.get_by_label("Spec", exact=True).and_(page.locator("textarea"))
    expect(editor).not_to_have_value("")
    editor.fill(json.dumps(LONG_JOB).replace("out_features", "out_featurs"))
    expect(page.get_by_role("alert")).to_contain_text("/model/layers/1/out_featurs")
    page.get_by_role("button", name="Mend it").click()
    expect(page.get_by_text("The spec is valid.")).to_be_visible()
    assert json.loads(editor.input_value()) == LONG_JOB


def test_two_jobs_are_compared_by_what_differs(seed: Seed, server: Server, open_page: OpenPage) -> None:
    for _ in range(2):
        job = seed.running()
        seed.points(job, {"val_loss": [1.0, 0.5], "val_accuracy": [0.5, 0.75]})
    page = open_page(f"{server.url}/ui/")
    expect(page.get_by_role("checkbox")).to_have_count(2)
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare 2").click()
    expect(page.get_by_text("The specs are the same.")).to_be_visible()
    expect(page.locator("[data-chart=val_loss]")).to_have_attribute("data-points", "2")
    page.get_by_label("only what differs").uncheck()
    expect(page.get_by_text("/optimizer/lr", exact=True)).to_be_visible()


def _pictures() -> dict[str, bytes]:
    """Of two classes, 40 each."""
    found = {}
    for label, colour in (("cat", (200, 60, 60)), ("dog", (60, 60, 200))):
        for number in range(40):
            image = io.BytesIO()
            Image.new("RGB", (24, 24), tuple(part + number for part in colour)).save(image, "png")
            found[f"{label}/{number}.png"] = image.getvalue()
    return found


def _packed(folder: Path, name: str) -> Path:
    archive = folder / f"{name}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path, content in _pictures().items():
            file.writestr(path, content)
    return archive


def _unpacked(folder: Path, name: str) -> Path:
    root = folder / name
    files = {**_pictures(), ".DS_Store": b"hidden"}
    files[f"cat/{'é' * 42}.png"] = files.pop("cat/0.png")
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("label", "make"), [("zip, tar or npz file, or drop one here", _packed), ("Or a folder", _unpacked)]
)
def test_images_become_a_dataset_in_the_page(
    group: Group, open_page: OpenPage, tmp_path: Path, label: str, make: Callable[[Path, str], Path]
) -> None:
    name = f"pets of {make.__name__}"
    page = open_page(f"{group.client.base_url}/ui/#/datasets")
    page.get_by_label(label).set_input_files(make(tmp_path, name))
    page.get_by_role("button", name="Upload").click()
    dataset = page.get_by_role("region", name=name)
    expect(dataset.locator(".chip")).to_have_text("ready", timeout=60_000)
    expect(dataset).to_contain_text("2 classes · 80 images")
    expect(dataset.get_by_role("img", name=f"Images of {name}")).to_be_visible()
    dataset.get_by_role("link", name="Train on it").click()
    expect(page.get_by_text("The spec is valid.")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value(name)
    spec = json.loads(page.get_by_label("Spec", exact=True).and_(page.locator("textarea")).input_value())
    assert (spec["model"]["type"], spec["training"]["batch_size"]) == ("fast_net", 16)  # four steps an epoch
    page.get_by_role("link", name="Datasets").click()
    dataset.get_by_role("button", name="Delete").click()
    dataset.get_by_role("button", name="Delete for good").click()
    expect(dataset).to_have_count(0)


def test_the_axes_of_arrays_are_chosen_in_the_page(group: Group, open_page: OpenPage, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 24, 3), np.uint8)  # 3 channels first or last
    np.savez(tmp_path / "narrow.npz", images=images, labels=np.arange(40) % 2)
    page = open_page(f"{group.client.base_url}/ui/#/datasets")
    page.get_by_label("zip, tar or npz file, or drop one here").set_input_files(tmp_path / "narrow.npz")
    page.get_by_label("Axes").select_option("NCHW")
    page.get_by_role("button", name="Upload").click()
    dataset = page.get_by_role("region", name="narrow")
    expect(dataset.locator(".chip")).to_have_text("ready", timeout=60_000)
    (found,) = [one for one in group.client.get("/v1/datasets").json()["data"] if one["name"] == "narrow"]
    assert found["content"]["shape"] == [3, 24, 3]
    dataset.get_by_role("button", name="Delete").click()
    dataset.get_by_role("button", name="Delete for good").click()
    expect(dataset).to_have_count(0)


def test_a_key_is_asked_for_and_kept(tmp_path: Path, open_page: OpenPage, watch: Watch) -> None:
    watch.allow("status of 401")
    app_settings = Settings(data_dir=tmp_path / "data", redis_url="redis://127.0.0.1:1/0", auth="keys")
    with serving(create_app(app_settings)) as running:
        with closing(Database(app_settings.resolved_database_url())) as database:
            Seed(database, app_settings.data_dir).queued("waits")
            with database.write() as connection:
                secret = keys.create(connection, name="page", scope=Scope.ADMIN)[1]
        page = open_page(f"{running.url}/ui/")
        page.get_by_label("Key", exact=True).fill(secret)
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("link", name="waits")).to_be_visible()
        page.reload()
        expect(page.get_by_role("link", name="waits")).to_be_visible()
        expect(page.locator(".live")).to_have_text("live")
        page.close()


def test_many_jobs_are_there_at_once(seed: Seed, server: Server, open_page: OpenPage) -> None:
    for number in range(NUM_JOBS):
        job = seed.running()
        seed.points(
            job, {f"series_{index}": [0.5, 0.25, 0.125] for index in range(NUM_SERIES - 1)} | {"val_loss": [1.0]}
        )
        with seed.database.write() as connection:
            attempts.finish(connection, job.id, job.token, JobStatus.CANCELLED, reason=f"seeded {number}")
    page = open_page(f"{server.url}/ui/#/workers")
    expect(page.locator(".live")).to_have_text("live")
    start = time.perf_counter()
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.locator("tr.job").nth(49).wait_for()
    first = time.perf_counter() - start
    expect(page.get_by_role("button", name=re.compile("cancelled"))).to_contain_text(str(NUM_JOBS))
    complete = time.perf_counter() - start
    start = time.perf_counter()
    page.locator("tr.job a").first.click()
    page.wait_for_selector("[data-chart=Loss][data-points]")
    opened = time.perf_counter() - start
    print(  # noqa: T201
        f"{NUM_JOBS} jobs: first rows after {first:.2f} s, all after {complete:.2f} s; one opens in {opened:.2f} s"
    )
    assert max(first, opened) < SECONDS * SLACK


def test_of_very_many_jobs_the_older_ones_come_when_they_are_asked_for(
    seed: Seed, server: Server, open_page: OpenPage
) -> None:
    seed.queued("the newest")
    with seed.database.write() as connection:
        row = dict(connection.execute(select(tables.jobs)).mappings().one())
        older = [{**row, "id": f"job_00{number:024}", "name": f"older {number}"} for number in range(2100)]
        connection.execute(insert(tables.jobs), older)
    page = open_page(f"{server.url}/ui/#/jobs?q=older")
    expect(page.get_by_text("Searched and sorted are the newest 2,000 jobs.")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Show more (1899)")).to_be_visible()
    page.get_by_role("button", name="Load older ones").click()
    expect(page.get_by_role("button", name="Show more (2000)")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Searched and sorted are")).to_have_count(0)
    page.get_by_role("button", name="Show more (2000)").click()
    expect(page.locator("tr.job")).to_have_count(200)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_look_as_the_readme_shows(
    group: Group, open_page: OpenPage, screenshots: Path, scheme: str
) -> None:
    spec = json.loads((Path(__file__).parents[2] / "examples" / "digits.json").read_text())
    known = group.client.get("/v1/jobs", params={"name": "digits baseline"}).json()["data"]
    if not known:
        known = [
            group.client.post("/v1/jobs", json={"spec": spec, "name": "digits baseline", "tags": ["baseline"]}).json()
        ]
        for lr in (0.01, 0.001):
            body = {
                "spec": spec | {"optimizer": {"type": "adam", "lr": lr}},
                "name": f"digits, lr {lr}",
                "tags": ["sweep"],
            }
            waiting = group.client.post("/v1/jobs", json=body).json()
            group.client.post(f"/v1/jobs/{waiting['id']}/pause")
    job_id = known[0]["id"]
    wait_until(lambda: group.client.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded", seconds=240)
    for name, fragment, width in (
        ("jobs", "#/jobs", 1280),
        ("job", f"#/jobs/{job_id}", 1280),
        ("submit", "#/new", 1280),
        ("jobs-390", "#/jobs", 390),
        ("job-390", f"#/jobs/{job_id}", 390),
        ("submit-390", "#/new", 390),
        ("datasets-390", "#/datasets", 390),
        ("workers-390", "#/workers", 390),
    ):
        page = open_page(f"{group.client.base_url}/ui/{fragment}", width=width, height=900, scheme=scheme)
        expect(page.locator(".live")).to_have_text(re.compile("live|"))
        page.wait_for_timeout(1000)  # curves and pictures come one after another
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        if not name.startswith(("datasets", "workers")):
            page.screenshot(path=screenshots / f"{name}-{scheme}.png")
        page.close()
