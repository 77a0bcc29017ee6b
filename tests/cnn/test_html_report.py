"""`report.html`: all of it in one file, and nothing in it that a name could make into markup."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cnn.data import Data
from cnn.events import Metrics, Result
from cnn.html_report import CAPTIONS, html_report
from cnn.spec import TrainingSpec
from cnn.training import train
from tests.cnn.plain import small_spec

EVIL = "<img src=x onerror=alert(1)>"
METRICS = [
    Metrics(1, 10, {"train_loss": 2.0, "val_loss": 1.0, "lr": 0.1}, {}),
    Metrics(2, 20, {"train_loss": float("nan"), "val_loss": 3.0, "lr": 0.1}, {}),
    Metrics(3, 30, {"train_loss": 1.0, "val_loss": 2.0, "lr": 0.1}, {}),
]
RESULT = Result(0.25, 0.875, "best", 2, 20)
CLASS = {"label": EVIL, "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 7}
REPORT: dict[str, Any] = {"splits": {"test": {"classes": [CLASS]}}}


class Page(HTMLParser):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page() -> Page:
    pictures = {"filters.png": b"\x89PNG"}
    return Page(html_report(small_spec(), METRICS, RESULT, REPORT, pictures, {"torch": EVIL}))


def test_names_are_text(page: Page) -> None:
    assert [image["src"] for image in page.all("img")] == ["data:image/png;base64,iVBORw=="]
    assert page.all("script") == []
    assert page.texts.count(EVIL) == 1
    assert any(EVIL in text for text in page.texts if "torch" in text)


def test_it_asks_nobody_for_anything(page: Page) -> None:
    attributes = [value or "" for _, found in page.tags for name, value in found.items() if name in ("src", "href")]
    assert all(value.startswith("data:") for value in attributes)
    [policy] = [meta["content"] for meta in page.all("meta") if "content" in meta]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_the_curves_are_those_of_the_metrics(page: Page) -> None:
    train, val, lr = [line["points"] for line in page.all("polyline")]
    # Losses from 1 to 3 over 188 pixels of height from y = 8; epochs 1 to 3 over 356 pixels from x = 56.
    assert train == "56.0,102.0 412.0,196.0"
    assert val == "56.0,196.0 234.0,8.0 412.0,102.0"
    assert lr == "56.0,102.0 234.0,102.0 412.0,102.0"


def test_the_result_the_classes_and_the_spec_are_in_it(page: Page) -> None:
    for expected in ("87.50%", "0.2500", "0.333", "7"):
        assert expected in page.texts
    shown = next(text for text in page.texts if '"optimizer"' in text)
    assert TrainingSpec.model_validate_json(shown) == small_spec()


def test_every_run_has_its_files_and_equal_runs_have_equal_ones(digits: Data, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for _ in train(small_spec(), digits, artifacts=tmp_path / folder):
            pass
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"report.html", "model.onnx", "onnx_parity.json", "bundle.tar", "events.out.tfevents"} <= names
    shown = Page((tmp_path / "a" / "report.html").read_bytes()).all("img")
    assert [image["alt"] for image in shown] == list(CAPTIONS.values())
    for image, name in zip(shown, CAPTIONS, strict=True):
        source = "data:image/png;base64," + base64.b64encode((tmp_path / "a" / name).read_bytes()).decode()
        assert image["src"] == source, name
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
