from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cnn import fetch


@pytest.fixture(scope="session")
def fashion_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files, got as a user would get them."""
    return fetch.fetch_fashion_mnist(tmp_path_factory.mktemp("data"), report=print)


def test_the_fetched_files_are_the_whole_dataset(fashion_mnist: Path) -> None:
    counts = {}
    for name in fetch.FASHION_MNIST:
        with gzip.open(fashion_mnist / name) as file:
            _, counts[name] = struct.unpack(">II", file.read(8))
    assert counts == {
        "train-images-idx3-ubyte.gz": 60_000,
        "train-labels-idx1-ubyte.gz": 60_000,
        "t10k-images-idx3-ubyte.gz": 10_000,
        "t10k-labels-idx1-ubyte.gz": 10_000,
    }


def test_files_in_the_data_directory_come_first(fashion_mnist: Path, tmp_path: Path) -> None:
    target = tmp_path / "datasets" / "fashion_mnist"
    fetch.install_files(fashion_mnist, target)
    reports: list[str] = []
    assert fetch.fetch_fashion_mnist(tmp_path, reports.append, system_folder=tmp_path / "absent") == target
    assert reports == []
    assert sorted(path.name for path in target.iterdir()) == sorted(fetch.FASHION_MNIST)


def test_a_corrupt_file_in_the_data_directory_is_named_and_replaced(fashion_mnist: Path, tmp_path: Path) -> None:
    target = tmp_path / "datasets" / "fashion_mnist"
    fetch.install_files(fashion_mnist, target)
    corrupt = target / "t10k-labels-idx1-ubyte.gz"
    corrupt.write_bytes(b"not labels")
    reports: list[str] = []
    fetch.fetch_fashion_mnist(tmp_path, reports.append, system_folder=fashion_mnist)
    assert len(reports) == 1
    assert f"{corrupt}: expected SHA-256 8d3605d1" in reports[0]
    fetch.check_files(target)


def test_the_system_folder_is_used_in_place(fashion_mnist: Path, tmp_path: Path) -> None:
    system = tmp_path / "system"
    fetch.install_files(fashion_mnist, system)
    assert fetch.fetch_fashion_mnist(tmp_path / "data", print, system_folder=system) == system
    assert not (tmp_path / "data").exists()


def test_every_failed_way_is_reported_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No apt-get on the path, and torchvision in an interpreter whose proxy refuses connections."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    reports: list[str] = []
    with pytest.raises(fetch.FetchError, match=r"Install the Debian package dataset-fashion-mnist, or put .* into"):
        fetch.fetch_fashion_mnist(tmp_path / "data", reports.append, system_folder=tmp_path / "absent")
    assert reports[0].startswith(f"not there: {tmp_path / 'data'}")
    assert reports[1].startswith(f"not there: {tmp_path / 'absent'}")
    assert reports[3] == "Debian's package without root failed: the command apt-get is not installed"
    assert reports[5].startswith("torchvision's download failed:")
    assert "Error" in reports[5]


def test_the_command_prints_the_folder_and_loads_no_torch(fashion_mnist: Path, tmp_path: Path) -> None:
    fetch.install_files(fashion_mnist, tmp_path / "datasets" / "fashion_mnist")
    program = (
        "import sys; from cnn.fetch import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 9 * ('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "fashion_mnist", "--data-dir", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"fashion_mnist: {tmp_path}/datasets/fashion_mnist\n"
