"""The compiled library: how it is built, and the file in which one for this machine lies."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCES = {
    Path(__file__).with_name("kernels.cpp"): ("-ffp-contract=fast",),
    Path(__file__).with_name("updates.cpp"): ("-ffp-contract=off", "-fno-math-errno"),
    Path(__file__).with_name("warp.cpp"): ("-ffp-contract=off",),
}
"""Each with the flags that it alone is compiled with."""
FOLDER = Path(__file__).with_name("__pycache__")
"""Where Python, too, keeps what it has compiled."""
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp", "-Wall", "-Wextra")
CPU_FEATURES = ("flags", "Features")
"""What /proc/cpuinfo calls the instructions that the CPU has, on x86 and on ARM."""


class BuildError(Exception):
    """There is no library; the message says why, and what would help."""


def library_path(folder: Path = FOLDER) -> Path:
    """The library of these sources and flags for this CPU and this torch, whether it was built or not."""
    digest = hashlib.sha256()
    for source, flags in SOURCES.items():
        digest.update(source.read_bytes())
        digest.update(f"{flags}\n".encode())
    for part in (*FLAGS, platform.machine(), _cpu_features(), torch.__version__):
        digest.update(f"{part}\n".encode())
    return folder / f"kernels-{digest.hexdigest()[:16]}.so"


def build(folder: Path = FOLDER) -> Path:
    """Compile the library for this machine, unless it is there already.

    Raises:
        BuildError: this is no Linux, no compiler is there, or it refuses the source.
    """
    path = library_path(folder)
    if path.exists():
        return path
    if sys.platform != "linux":
        raise BuildError(f"torch's threads can be shared on Linux only, this is {sys.platform}")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise BuildError(f"none of {', '.join(COMPILERS)} is on the path: install one, such as Debian's package g++")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        linked, compiled = Path(temporary) / "kernels.so", []
        for source, flags in SOURCES.items():
            compiled.append(f"{temporary}/{source.stem}.o")
            _run(compiler, *FLAGS, *flags, "-c", str(source), "-o", compiled[-1])
        # Linked by hand: -fopenmp would add the compiler's OpenMP to torch's, and two pools of threads fight.
        _run(compiler, "-shared", "-s", *compiled, str(_openmp_of_torch()), "-o", str(linked))
        _load(linked)
        os.replace(linked, path)
    return path


def _load(path: Path) -> None:
    """What another compiler than GCC makes of the pragmas may need an OpenMP library that is not torch's."""
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"what was compiled does not go with torch's OpenMP library: {error}") from error


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise BuildError(f"`{' '.join(command)}` ended with {done.returncode}: {reason}")


def _openmp_of_torch(maps: Path = Path("/proc/self/maps")) -> Path:
    """The OpenMP library that came into this process with torch."""
    lines = maps.read_text().splitlines()
    mapped = {Path(line.split(maxsplit=5)[-1]) for line in lines if ".so" in line}  # a path may have spaces
    found = sorted(path for path in mapped if path.name.startswith(("libgomp", "libomp", "libiomp5")))
    if len(found) != 1:
        raise BuildError(f"expected one OpenMP library beside torch in this process, got {len(found)}: {found}")
    return found[0]


@functools.cache
def _cpu_features() -> str:
    if sys.platform != "linux":
        return ""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith(CPU_FEATURES)), "")
