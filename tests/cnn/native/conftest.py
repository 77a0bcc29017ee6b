from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.native.build import COMPILERS
from cnn.native.library import Library
from tests.cnn.native.using import using

BUILD = "import pathlib, sys; from cnn.native.build import build; build(pathlib.Path(sys.argv[1]))"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the library, built in a process that has no other OpenMP than torch's."""
    if sys.platform != "linux" or not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C++ compiler is here, or this is no Linux")
    folder = tmp_path_factory.mktemp("native")
    done = subprocess.run([sys.executable, "-c", BUILD, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def native(folder: Path) -> Iterator[Library]:
    """The library, which this process uses meanwhile."""
    with using(folder) as library:
        yield library
