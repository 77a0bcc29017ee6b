"""The page's files: what they are made of, and how they are served."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest

from cnn.spec import TrainingSpec
from server.routes.ui import CONTENT_SECURITY_POLICY

ROOT = Path(__file__).parents[2]
UI = ROOT / "server" / "ui"
OURS = [path for path in sorted(UI.rglob("*")) if path.is_file() and "vendor" not in path.parts]
MODULES = [path for path in OURS if path.suffix == ".js"]
EXAMPLES = json.loads((UI / "examples" / "index.json").read_text())


def test_vendored_files_are_those_of_the_registry() -> None:
    listed = {
        UI / "vendor" / name: file["sha256"]
        for package in json.loads((UI / "vendor" / "VENDOR.json").read_text())
        for name, file in package["files"].items()
    }
    there = {path for path in (UI / "vendor").rglob("*") if path.is_file()} - {UI / "vendor" / "VENDOR.json"}
    assert there == set(listed)
    for path, expected in listed.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected, path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_are_small_and_write_text_only(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") < 300
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|https?://", source)
    for target in re.findall(r'from "([^"]+)"', source):
        assert target.startswith("."), f"{target}: only files of the page itself"
        assert (path.parent / target).resolve().is_file()


def test_all_modules_are_asked_for_at_once() -> None:
    listed = re.findall(r'rel="modulepreload" href="([^"]+)"', (UI / "index.html").read_text())
    there = [path.relative_to(UI).as_posix() for path in sorted(UI.rglob("*.js"))]
    assert sorted([*listed, "main.js"]) == sorted(there)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["file"])
def test_examples_are_valid_and_those_of_the_repository(example: dict[str, str]) -> None:
    spec = json.loads((UI / "examples" / example["file"]).read_text())
    assert TrainingSpec.model_validate(spec)
    assert spec == json.loads((ROOT / "examples" / example["file"]).read_text())


@pytest.mark.anyio
async def test_files_are_served_with_a_strict_policy(http: httpx.AsyncClient) -> None:
    assert (await http.get("/")).headers["location"] == "/ui/"
    assert (await http.get("/ui")).headers["location"] == "/ui/"
    for path in ["", *(path.relative_to(UI).as_posix() for path in OURS)]:
        response = await http.get(f"/ui/{path}")
        assert response.status_code == 200, path
        assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        again = await http.get(f"/ui/{path}", headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304, path
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert (await http.get("/ui/main.js")).headers["content-type"].startswith("text/javascript")


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["nothing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "vendor", "%00"])
async def test_nothing_else_is_served(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(f"/ui/{path}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
