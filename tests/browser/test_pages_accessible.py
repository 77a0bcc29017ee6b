"""What axe finds in each page, and what the keys reach."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from server.app import create_app
from server.client import Client
from tests.browser.watching import Watch
from tests.integration.group import Group
from tests.server.seeding import Seed
from tests.server.serving import Server, serving
from worker.settings import Settings
from worker.store import keys
from worker.store.database import Database
from worker.store.keys import Scope

OpenPage = Callable[..., Page]
SEEN = [("light", 1280), ("dark", 1280), ("light", 390)]
SPEC = json.loads((Path(__file__).parents[2] / "examples" / "digits.json").read_text())
PAGES = {
    "#/jobs": "tr.job .chip",
    "#/jobs/JOB": "[aria-label='Filters of the first layer'] img",
    "#/new": ".facts",
    "#/new?from=JOB": ".facts",
    "#/compare?ids=JOB,JOB": "[data-chart=val_loss]",
    "#/datasets": "[aria-label=shades] img",
    "#/workers": "td .chip",
}
"""Address of each page, and what shows that it is all there."""
PLACES = "a[href], button:enabled, input:enabled, select:enabled, textarea:enabled, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def trained(group: Group, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that has every panel, beside a dataset of one's own."""
    archive = tmp_path_factory.mktemp("images") / "shades.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(20):
            image = io.BytesIO()
            Image.new("L", (8, 8), 12 * number).save(image, "png")
            file.writestr(f"{'ab'[number % 2]}/{number}.png", image.getvalue())
    with Client(str(group.client.base_url)) as client:
        upload = client.datasets.upload(archive)
        dataset = client.datasets.register(
            upload.id, name="shades", format={"type": "image_folder", "test_fraction": 0.2}
        )
        job = client.submit({**SPEC, "training": {"epochs": 1}}, name="to be read", tags=["seen"])
        assert client.datasets.wait(dataset.id).status == "ready"
        *_, job = client.wait(job.id)
    assert job.status == "succeeded"
    return job.id


def _faults(page: Page) -> list[str]:
    """What axe calls serious or critical, with all parts of the page unfolded."""
    page.evaluate("() => document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['impact']} {fault['id']}: {fault['nodes'][0]['html']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def _open(group: Group, open_page: OpenPage, address: str, job_id: str) -> Page:
    page = open_page(f"{group.client.base_url}/ui/{address.replace('JOB', job_id)}")
    page.locator(PAGES[address]).first.wait_for()
    return page


@pytest.mark.parametrize("address", PAGES)
def test_axe_finds_nothing_serious(group: Group, trained: str, open_page: OpenPage, address: str) -> None:
    page = _open(group, open_page, address, trained)
    for scheme, width in SEEN:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        assert _faults(page) == [], (scheme, width)


@pytest.mark.parametrize("address", PAGES)
def test_the_tab_key_reaches_everything(group: Group, trained: str, open_page: OpenPage, address: str) -> None:
    page = _open(group, open_page, address, trained)
    places = page.locator(PLACES).and_(page.locator(":visible"))
    number = places.count()
    page.evaluate(
        "() => { window.reached = new Set(); addEventListener('focusin', (e) => window.reached.add(e.target)); }"
    )
    for _ in range(number + 5):
        page.keyboard.press("Tab")
    missed = page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)]
            .filter((one) => one.checkVisibility() && !window.reached.has(one)).map((one) => one.outerHTML)""",
        PLACES,
    )
    assert missed == []


def test_keys_open_pages_and_say_which_they_are(group: Group, trained: str, open_page: OpenPage) -> None:
    page = _open(group, open_page, "#/workers", trained)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    assert _faults(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.get_by_role("link", name="to be read").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="to be read")).to_be_visible()


def test_a_key_counts_as_soon_as_the_list_of_keys_is_closed(group: Group, trained: str, open_page: OpenPage) -> None:
    page = _open(group, open_page, "#/workers", trained)
    expect(page.get_by_role("heading", name="Workers and queue")).to_be_visible()
    page.evaluate(
        """() => {
            const dialog = document.querySelector("dialog[aria-label=Keys]");
            dialog.showModal();
            dialog.close();
            const key = new KeyboardEvent("keydown", { key: "j", bubbles: true, cancelable: true });
            dialog.querySelector("button").dispatchEvent(key);  // which has the focus until the next frame
        }"""
    )
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


def test_keys_zoom_and_move_in_a_chart(seed: Seed, server: Server, open_page: OpenPage) -> None:
    job = seed.running()
    seed.points(job, {"val_loss": [1.0] * 41})  # at steps 10 to 410
    page = open_page(f"{server.url}/ui/#/jobs/{job.id}?x=step")
    chart = page.locator("[data-chart=Loss]")
    chart.focus()
    for keys_pressed, range_ in [
        ("+", (110, 310)),
        ("+", (160, 260)),
        ("ArrowRight", (185, 285)),
        ("-", (135, 335)),
        *[("ArrowLeft", (85, 285)), ("ArrowLeft", (35, 235)), ("ArrowLeft", (10, 210)), ("ArrowLeft", (10, 210))],
        ("-", (10, 410)),
        ("+", (110, 310)),
        ("0", (10, 410)),
    ]:
        page.keyboard.press(keys_pressed)
        expect(chart).to_have_attribute("data-x-min", str(range_[0]))
        expect(chart).to_have_attribute("data-x-max", str(range_[1]))


def test_keys_are_made_and_revoked_in_the_page(tmp_path: Path, open_page: OpenPage, watch: Watch) -> None:
    watch.allow("status of 401")
    settings = Settings(data_dir=tmp_path / "data", redis_url="redis://127.0.0.1:1/0", auth="keys")
    with serving(create_app(settings)) as running, closing(Database(settings.resolved_database_url())) as database:
        with database.write() as connection:
            secrets = {
                scope: keys.create(connection, name=f"a {scope} key", scope=scope)[1]
                for scope in (Scope.ADMIN, Scope.READ)
            }
        page = open_page(f"{running.url}/ui/")
        dialog = page.get_by_role("dialog", name="API key")
        dialog.wait_for()
        assert _faults(page) == []
        dialog.get_by_label("Key", exact=True).fill(secrets[Scope.ADMIN])
        dialog.get_by_role("button", name="Continue").click()
        page.get_by_role("link", name="Keys").click()
        form = page.get_by_role("region", name="New key")
        form.get_by_label("Name").fill("laptop")
        form.get_by_label("Waiting jobs").fill("20")
        form.get_by_label("Good for days").fill("0.5")
        form.get_by_role("button", name="Make it").click()
        made = form.locator("code").inner_text()
        assert made.startswith("epk_")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert _faults(page) == []
        with database.read() as connection:
            key = keys.find(connection, made)
        assert key is not None
        assert (key.name, key.scope, key.limits.max_queued, key.limits.max_running) == ("laptop", "submit", 20, None)
        assert key.expires_at is not None
        assert (key.expires_at - key.created_at).total_seconds() == pytest.approx(43_200, abs=5)
        form.get_by_role("button", name="I have it").click()
        expect(page.get_by_text(made)).to_have_count(0)
        row = page.get_by_role("row", name="laptop")
        row.get_by_role("button", name="Revoke laptop").click()
        row.get_by_role("button", name="Revoke for good").click()
        expect(row.locator(".chip")).to_have_text("revoked")
        page.close()

        page = open_page(f"{running.url}/ui/#/keys")
        page.get_by_label("Key", exact=True).fill(secrets[Scope.READ])
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("region", name="Your key: a read key")).to_be_visible()
        expect(page.get_by_role("region", name="New key")).to_have_count(0)
        page.close()
