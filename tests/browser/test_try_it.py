"""A network is tried on images in the page of its job."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from cnn.datasets import Digits
from tests.browser.watching import Watch
from tests.server.predicting import picture, trained
from tests.server.seeding import SPEC, Seed
from tests.server.serving import Server

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("trained")
    return trained({**SPEC, "training": {"epochs": 3}}, folder / "artifacts", folder / "data")


def test_images_are_chosen_or_dropped_and_named(
    seed: Seed,
    server: Server,
    open_page: OpenPage,
    watch: Watch,
    files: dict[str, bytes],
    tmp_path: Path,
    screenshots: Path,
) -> None:
    watch.allow("status of 422")  # of the file that is no image
    job = seed.succeeded(files)
    images = Digits().load(tmp_path).test_images
    chosen = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(chosen):
        path.write_bytes(picture(images[number]))
    page = open_page(f"{server.url}/ui/#/jobs/{job.id}")
    panel = page.get_by_role("region", name="Try it")
    panel.get_by_label("Images, or drop some here").set_input_files(chosen)
    tried = panel.locator("ul.tried > li")
    expect(tried).to_have_count(2)
    expect(tried.locator("ol")).to_have_count(2, timeout=60_000)

    answer = page.request.post(f"{server.url}/v1/jobs/{job.id}/predict", data=chosen[1].read_bytes()).json()
    rows = tried.nth(1).locator("ol > li")
    for row, one in zip(rows.all(), answer["data"][0]["predictions"], strict=True):
        expect(row).to_have_text(re.compile(rf"^\s*{one['label']}\s*{100 * one['probability']:.1f}\s*%\s*$"))
    assert panel.locator("img").first.evaluate("image => image.naturalWidth") == 8

    panel.locator(".drop").evaluate(
        """(zone, bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "<i>dropped</i>.png", { type: "image/png" }));
          data.items.add(new File(["no image"], "words.png", { type: "image/png" }));
          zone.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list(picture(images[2])),
    )
    expect(tried).to_have_count(4)
    expect(tried.nth(0).locator("ol")).to_have_count(1)
    expect(tried.nth(0)).to_contain_text("<i>dropped</i>.png")
    expect(tried.nth(1).get_by_role("alert")).to_have_text(
        "expected an image as PNG, JPEG, WEBP, BMP, or an array as NPY or NPZ, got something else"
    )

    expect(tried.nth(1)).to_contain_text("no picture")
    expect(tried.nth(1).locator("img")).to_have_count(0)

    array = tmp_path / "several.npy"
    np.save(array, images[:3])
    panel.get_by_label("Images, or drop some here").set_input_files(array)
    expect(tried).to_have_count(5)
    several = tried.nth(0)
    expect(several.locator("ol")).to_have_count(3)
    expect(several).to_contain_text("image 2")
    expect(several.locator("img")).to_have_count(0)
    assert several.locator("ol").nth(1).inner_text() == tried.nth(4).locator("ol").inner_text()
    panel.get_by_label("Axes of arrays").select_option("NHWC")
    panel.get_by_label("Images, or drop some here").set_input_files(array)
    expect(tried.nth(0).get_by_role("alert")).to_contain_text("expected NHWC")

    panel.screenshot(path=screenshots / "try-it.png")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_network_that_was_not_exported_says_so(seed: Seed, server: Server, open_page: OpenPage) -> None:
    job = seed.succeeded({"model.safetensors": b"weights", "labels.json": json.dumps(["a"]).encode()})
    page = open_page(f"{server.url}/ui/#/jobs/{job.id}")
    panel = page.get_by_role("region", name="Try it")
    expect(panel).to_contain_text("could not be exported as model.onnx")
    expect(panel.locator("input")).to_have_count(0)
