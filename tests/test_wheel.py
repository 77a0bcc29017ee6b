"""The wheel that others install has every file of the packages, also those that are no Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cnn", "worker", "server")
LEFT_OUT = {"server/Dockerfile", "worker/Dockerfile"}


def files_of(root: Path) -> set[str]:
    found = (path for package in PACKAGES for path in (root / package).rglob("*"))
    return {path.relative_to(root).as_posix() for path in found if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_has_every_file_of_the_packages(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # Built with the setuptools that is installed, so that no network is needed.
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("epochd-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("epochd-")}
    assert names == files_of(source) - LEFT_OUT
    assert {"server/ui/index.html", "server/ui/vendor/VENDOR.json", "server/ui/examples/index.json"} <= names
    assert "worker/store/migrations/script.py.mako" in names
    assert len([name for name in names if name.startswith("worker/store/migrations/versions/")]) > 5
