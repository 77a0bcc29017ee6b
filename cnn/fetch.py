"""`python -m cnn.fetch fashion_mnist` (or `mnist`): put the real dataset files where `cnn.datasets` looks for them.

Ways, in order: the data directory already has them; the system's folder of Debian's package; that package downloaded
and unpacked without root; torchvision's download. Every file is accepted by its SHA-256 alone, wherever it came from.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
MNIST = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
FILES = {"fashion_mnist": FASHION_MNIST, "mnist": MNIST}
TORCHVISION_NAMES = {"fashion_mnist": "FashionMNIST", "mnist": "MNIST"}
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DOWNLOAD_SECONDS = 240


class FetchError(Exception):
    """A way to get the files failed; the message says why."""


def check_files(folder: Path, files: Mapping[str, str] = FASHION_MNIST) -> None:
    """Raise FetchError unless `folder` holds the four files of a dataset with the right SHA-256."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise FetchError(f"{path} does not exist")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected:
            raise FetchError(f"{path}: expected SHA-256 {expected}, got {digest}")


def install_files(source: Path, target: Path, files: Mapping[str, str] = FASHION_MNIST) -> None:
    """Check the four files in `source` and copy them to `target`, each under its final name only when complete."""
    check_files(source, files)
    target.mkdir(parents=True, exist_ok=True)
    for name in files:
        partial = target / f"{name}.partial"
        shutil.copyfile(source / name, partial)
        partial.replace(target / name)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
        )
    except FileNotFoundError:
        raise FetchError(f"the command {command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{command[0]} did not finish within {DOWNLOAD_SECONDS} s") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["(no output)"]
        raise FetchError(f"{command[0]} exited with {done.returncode}: {'; '.join(lines[-3:])}")


def _download_package(scratch: Path) -> None:
    """`apt-get download` into `scratch` with the system's package lists, else with private ones; neither needs root."""
    try:
        _run(["apt-get", "download", DEBIAN_PACKAGE], scratch)
        return
    except FetchError:
        lists, cache = scratch / "lists", scratch / "cache"
        (lists / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
    options = {
        "Dir::State::lists": str(lists),
        "Dir::Cache": str(cache),
        "APT::Sandbox::User": "",  # under root, apt would drop to a user that cannot write to the scratch folder
        "Acquire::Languages": "none",
    }
    private = [f"-o{name}={value}" for name, value in options.items()]
    _run(["apt-get", *private, "update"], scratch)
    _run(["apt-get", *private, "download", DEBIAN_PACKAGE], scratch)


def from_debian(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="epochd-fetch-") as name:
        scratch = Path(name)
        _download_package(scratch)
        (package,) = scratch.glob(f"{DEBIAN_PACKAGE}_*.deb")
        _run(["dpkg-deb", "-x", str(package), "unpacked"], scratch)
        install_files(scratch / "unpacked" / SYSTEM_FOLDER.relative_to("/"), target)


def from_torchvision(target: Path, dataset: str = "fashion_mnist") -> None:
    name = TORCHVISION_NAMES[dataset]
    with tempfile.TemporaryDirectory(prefix="epochd-fetch-") as scratch:
        program = f"from torchvision.datasets import {name}; {name}({scratch!r}, download=True)"
        _run([sys.executable, "-c", program], Path(scratch))
        install_files(Path(scratch) / name / "raw", target, FILES[dataset])


def fetch_fashion_mnist(data_dir: Path, report: Callable[[str], None], system_folder: Path = SYSTEM_FOLDER) -> Path:
    """The folder with the four verified files; `report` hears of each way that was tried and why it failed."""
    target = data_dir / "datasets" / "fashion_mnist"
    try:
        check_files(target)
        return target
    except FetchError as error:
        report(f"not there: {error}")
    try:
        check_files(system_folder)
        if target.exists():  # incomplete or corrupt, and looked at first when a dataset is loaded
            install_files(system_folder, target)
        return system_folder
    except FetchError as error:
        report(f"not there: {error}")
    ways = {"Debian's package without root": from_debian, "torchvision's download": from_torchvision}
    for name, way in ways.items():
        report(f"trying {name} …")
        try:
            way(target)
        except FetchError as error:
            report(f"{name} failed: {error}")
        else:
            return target
    raise FetchError(
        f"Fashion-MNIST is not here and no way to get it worked. Install the Debian package {DEBIAN_PACKAGE}, "
        f"or put {', '.join(FASHION_MNIST)} into {target}"
    )


def fetch_mnist(data_dir: Path) -> Path:
    """The folder with the four verified files: of MNIST there is no Debian package, only torchvision's download."""
    target = data_dir / "datasets" / "mnist"
    try:
        check_files(target, MNIST)
    except FetchError:
        from_torchvision(target, "mnist")
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cnn.fetch", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("dataset", choices=list(FILES))
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"), help="default: %(default)s")
    parsed = parser.parse_args(arguments)
    try:
        data_dir = parsed.data_dir.absolute()
        mnist = parsed.dataset == "mnist"
        folder = fetch_mnist(data_dir) if mnist else fetch_fashion_mnist(data_dir, report=print)
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{parsed.dataset}: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
