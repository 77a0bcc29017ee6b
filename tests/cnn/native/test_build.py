from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnn.native import build, library
from cnn.native.__main__ import main
from cnn.native.build import BuildError, library_path
from cnn.native.library import Library


def compiler(folder: Path, script: str) -> None:
    file = folder / "c++"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"none of c\+\+, g\+\+, clang\+\+ is on the path: install"):
        build.build(tmp_path / "native")


def test_a_compiler_that_refuses_is_quoted_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path, "echo 'error: no such -march' >&2; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BuildError, match="ended with 3: error: no such -march"):
        build.build(tmp_path / "native")
    assert not list((tmp_path / "native").iterdir())


@pytest.mark.usefixtures("folder")  # where there is a compiler
def test_what_cannot_be_loaded_is_not_kept(tmp_path: Path) -> None:
    """Clang's calls, for one, are those of an OpenMP library of its own."""
    source, native = tmp_path / "source.cpp", tmp_path / "native"
    source.write_text('extern "C" void of_another(); extern "C" void pool() { of_another(); }')
    program = f"""
import pathlib
from cnn.native import build
build.SOURCES = {{pathlib.Path({str(source)!r}): ()}}
build.build(pathlib.Path({str(native)!r}))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "BuildError: what was compiled does not go with torch's OpenMP library" in ended.stderr
    assert "undefined symbol: of_another" in ended.stderr
    assert not list(native.iterdir())


def test_torch_may_lie_in_a_folder_with_a_space_in_its_name(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    rest = "7f31a7e00000-7f31a7e28000 r--p 00000000 fe:01 4711                       "
    maps.write_text(
        f"{rest}/usr/lib/libc.so.6\n{rest}/home/my work/torch/lib/libgomp.so.1\n7f31a8000000-7f31a8021000 rw-p\n"
    )
    assert build._openmp_of_torch(maps) == Path("/home/my work/torch/lib/libgomp.so.1")


def test_what_is_built_is_not_built_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert build.build(folder) == library_path(folder)
    assert [path.name for path in folder.iterdir()] == [library_path(folder).name]


def test_equal_builds_are_equal_to_the_byte(folder: Path, tmp_path: Path) -> None:
    program = "import pathlib, sys; from cnn.native.build import build; build(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    assert Library(library_path(tmp_path)).digest == Library(library_path(folder)).digest


@pytest.mark.parametrize("name", ["kernels.cpp", "updates.cpp", "warp.cpp"])
def test_another_source_flag_or_cpu_needs_another_library(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {library_path(tmp_path)}
    with monkeypatch.context() as changed:
        changed.setattr(build, "_cpu_features", lambda: "flags : fpu")
        paths.add(library_path(tmp_path))
    (source,) = (source for source in build.SOURCES if source.name == name)
    other = tmp_path / name
    other.write_bytes(source.read_bytes() + b"\n")
    with monkeypatch.context() as changed:
        changed.setattr(
            build, "SOURCES", {other if each == source else each: build.SOURCES[each] for each in build.SOURCES}
        )
        paths.add(library_path(tmp_path))
    monkeypatch.setitem(build.SOURCES, source, (*build.SOURCES[source], "-g"))
    paths.add(library_path(tmp_path))
    assert len(paths) == 4


def test_without_a_library_none_is_found(tmp_path: Path) -> None:
    assert library.find(tmp_path) is None


def test_the_command_says_what_it_did(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(folder) == 0
    assert "is there already: training uses it" in capsys.readouterr().out
    assert main(tmp_path) == 1
    assert "so training uses torch's own layers: none of c++" in capsys.readouterr().err
