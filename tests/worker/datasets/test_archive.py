"""Archives that attack, each built byte by byte; and that what ordinary programs write is read."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.datasets.attacks import ZipFile, Zipped, header, pax, tar, tarred, tgz, zipped
from worker.datasets.archive import extract
from worker.datasets.extraction import ArchiveRefused, Limits

DEFLATED = 8
LIMITS = Limits(members=100, member_bytes=2**20, total_bytes=2**21, ratio=10, free_bytes=2**16)
NOISE = b"".join(zlib.crc32(b"%d" % i).to_bytes(4, "big") for i in range(1250))
INNER_ZIP = zipped(Zipped(b"a"))
BIG = 0xFFFFFFFF


def zip64(**sizes: int) -> bytes:
    """A zip64 field in which sizes lie."""
    values = b"".join(struct.pack("<Q", value) for value in sizes.values())
    return struct.pack("<2H", 1, len(values)) + values


def quine_like() -> bytes:
    """Many members whose content is the same bytes of the archive, as in a bomb without ratio."""
    kernel = Zipped(b"0", bytes(50_000), DEFLATED)
    return zipped(kernel, *(Zipped(b"%d" % i, bytes(50_000), DEFLATED, offset=0) for i in range(1, 50)))


def shifted_overlap() -> bytes:
    """The second member lies inside the content of the first."""
    inner = zipped(Zipped(b"inner", NOISE))
    return zipped(Zipped(b"outer", inner), Zipped(b"inner", NOISE, offset=30 + len("outer")))


def zip64_end(**lies: int) -> bytes:
    """An honest archive whose end refers to a zip64 record."""
    honest = zipped(Zipped(b"a"))
    body, end = honest[:-22], struct.unpack("<4s4H2LH", honest[-22:])
    length, start = end[5], end[6]
    fields = {"count": 1, "length": length, "start": start, "where": len(body)} | lies
    counts = (fields["count"], fields["count"], fields["length"], fields["start"])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *counts)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, fields["where"], 1)
    return body + record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, BIG, BIG, 0)


ATTACKS: dict[str, tuple[bytes, str, str | None]] = {
    "zip: ..": (zipped(Zipped(b"ok"), Zipped(b"a/../../evil")), "unsafe_path", "a/../../evil"),
    "zip: absolute": (zipped(Zipped(b"/etc/evil")), "unsafe_path", "/etc/evil"),
    "zip: backslash": (zipped(Zipped(b"a\\..\\evil")), "unsafe_path", "a\\..\\evil"),
    "zip: drive": (zipped(Zipped(b"C:evil")), "unsafe_path", "C:evil"),
    "zip: symbolic link": (zipped(Zipped(b"link", b"/etc/passwd", mode=0o120777)), "link", "link"),
    "zip: device": (zipped(Zipped(b"dev", mode=0o020666)), "special_file", "dev"),
    "zip: pipe": (zipped(Zipped(b"pipe", mode=0o010666)), "special_file", "pipe"),
    "zip: NUL in a name": (zipped(Zipped(b"a.png\0.exe")), "odd_name", "a.png\0.exe"),
    "zip: line break in a name": (zipped(Zipped(b"a\nb")), "odd_name", "a\nb"),
    "zip: turned text": (zipped(Zipped("a\u202egnp.exe".encode())), "odd_name", "a\u202egnp.exe"),
    "zip: not UTF-8 although it says so": (zipped(Zipped(b"\xff", flags=1 << 11)), "odd_name", "\ufffd"),
    "zip: no name": (zipped(Zipped(b"")), "odd_name", ""),
    "zip: empty part": (zipped(Zipped(b"a//b")), "odd_name", "a//b"),
    "zip: long name": (zipped(Zipped(b"a" * 256)), "name_too_long", "a" * 256),
    "zip: deep path": (zipped(Zipped(b"a/" * 600 + b"b")), "name_too_long", "a/" * 600 + "b"),
    "zip: a name twice": (zipped(Zipped(b"a"), Zipped(b"a")), "duplicate_name", "a"),
    "zip: a name twice in two normal forms": (
        zipped(Zipped("é".encode()), Zipped("e\u0301".encode())), "duplicate_name", "é",
    ),
    "zip: upper and lower case": (zipped(Zipped(b"x/a"), Zipped(b"X/a")), "case_collision", "X"),
    "zip: a file and a folder": (zipped(Zipped(b"a"), Zipped(b"a/b")), "duplicate_name", "a"),
    "zip: a folder and a file": (zipped(Zipped(b"a/b"), Zipped(b"a")), "duplicate_name", "a"),
    "zip: two names": (zipped(Zipped(b"good", local_name=b"evil")), "archive_damaged", "good"),
    "zip: encrypted": (zipped(Zipped(b"secret", flags=1)), "encrypted", "secret"),
    "zip: strongly encrypted": (zipped(Zipped(b"secret", flags=1 << 6)), "encrypted", "secret"),
    "zip: other compression": (zipped(Zipped(b"a", method=14)), "compression_method", "a"),
    "zip: high ratio": (zipped(Zipped(b"bomb", bytes(2**19), DEFLATED)), "archive_bomb", "bomb"),
    "zip: large member": (zipped(Zipped(b"big", bytes(2**20 + 1), DEFLATED)), "archive_bomb", "big"),
    "zip: says that it is small": (zipped(Zipped(b"lie", bytes(60_000), DEFLATED, size=10)), "archive_damaged", "lie"),
    "zip: says that it is large": (zipped(Zipped(b"lie", size=70)), "archive_damaged", "lie"),
    "zip: same bytes": (quine_like(), "overlap", "1"),
    "zip: overlap": (shifted_overlap(), "overlap", "inner"),
    "zip: reaches into the directory": (zipped(Zipped(b"a", compressed=10**6)), "archive_damaged", "a"),
    "zip: outside": (zipped(Zipped(b"a"), Zipped(b"b", offset=10**6)), "archive_damaged", "b"),
    "zip: wrong checksum": (zipped(Zipped(b"a", crc=1)), "archive_damaged", "a"),
    "zip: headers contradict": (zipped(Zipped(b"a", local_size=99)), "archive_damaged", "a"),
    "zip: rest behind deflated": (
        zipped(Zipped(b"a", b"", DEFLATED, data=b"\3\0hidden")), "archive_damaged", "a",
    ),
    "zip: cut deflated": (zipped(Zipped(b"a", NOISE, DEFLATED, data=Zipped(b"", NOISE, 8).stored[:-9])),
                          "archive_damaged", "a"),
    "zip: no deflated": (zipped(Zipped(b"a", NOISE, DEFLATED, data=b"\xff" * 99)), "archive_damaged", "a"),
    "zip: zip64 sizes missing": (zipped(Zipped(b"a", size=BIG, local_size=7)), "archive_damaged", "a"),
    "zip: zip64 sizes lie": (
        zipped(Zipped(b"a", size=BIG, extra=zip64(size=2**40), local_size=7)), "archive_damaged", "a",
    ),
    "zip: zip64 offset lies": (
        zipped(Zipped(b"a"), Zipped(b"b", offset=BIG, extra=zip64(offset=2**40))), "archive_damaged", "b",
    ),
    "zip: zip64 record elsewhere": (zip64_end(where=2**40), "archive_damaged", None),
    "zip: zip64 directory lies": (zip64_end(start=2**40), "archive_damaged", None),
    "zip: zip64 count lies": (zip64_end(count=50), "archive_damaged", None),
    "zip: many members announced": (zip64_end(count=2**40), "too_many_members", None),
    "zip: fewer members announced": (ZipFile([Zipped(b"a"), Zipped(b"b")], count=1).build(), "archive_damaged", None),
    "zip: many members": (zipped(*(Zipped(b"%d" % i) for i in range(101))), "too_many_members", None),
    "zip: divided": (zipped(Zipped(b"a"), disk=1), "archive_damaged", None),
    "zip: something between": (zipped(Zipped(b"a"), between=b"hidden", suffix=b"x"), "archive_damaged", None),
    "zip: cut": (zipped(Zipped(b"a", NOISE))[:-30], "archive_damaged", None),
    "zip: rest": (zipped(Zipped(b"a"), suffix=b"rest"), "archive_damaged", None),
    "zip: zip inside": (zipped(Zipped(b"a/inner.png", INNER_ZIP)), "nested_archive", "a/inner.png"),
    "zip: folder with content": (zipped(Zipped(b"a/", b"hidden")), "archive_damaged", "a/"),
    "zip: empty": (zipped(), "empty_archive", None),
    "tar: ..": (tar(tarred(b"ok"), tarred(b"../evil")), "unsafe_path", "../evil"),
    "tar: absolute": (tgz(tarred(b"/evil")), "unsafe_path", "/evil"),
    "tar: symbolic link": (tar(tarred(b"link", b"", b"2", link=b"/etc/passwd")), "link", "link"),
    "tar: hard link": (tar(tarred(b"a"), tarred(b"link", b"", b"1", link=b"/etc/passwd")), "link", "link"),
    "tar: a link, then through it": (
        tar(tarred(b"d", b"", b"2", link=b"/tmp"), tarred(b"d/evil")), "link", "d",
    ),
    "tar: device": (tar(tarred(b"dev", b"", b"4")), "special_file", "dev"),
    "tar: pipe": (tar(tarred(b"pipe", b"", b"6")), "special_file", "pipe"),
    "tar: sparse": (tar(tarred(b"sparse", b"", b"S")), "special_file", "sparse"),
    "tar: pax leads out": (tar(pax(path="../../evil"), tarred(b"ok")), "unsafe_path", "../../evil"),
    "tar: pax sparse": (tar(pax(**{"GNU.sparse.major": "1"}), tarred(b"ok")), "special_file", "PaxHeaders/0"),
    "tar: long name leads out": (tar(tarred(b"././@LongLink", b"../" * 60 + b"evil\0", b"L"), tarred(b"ok")),
                                 "unsafe_path", "../" * 60 + "evil"),
    "tar: name of a gigabyte": (tar(header(b"long", 2**30, b"L")), "archive_damaged", "long"),
    "tar: pax size lies": (tar(pax(size=str(10**15)), tarred(b"a")), "archive_damaged", "a"),
    "tar: negative size": (tar(tarred(b"a", size=b"\xff" * 12)), "archive_damaged", None),
    "tar: size of the universe": (tar(tarred(b"a", size=b"\x80" + b"\xff" * 11)), "archive_damaged", "a"),
    "tar: no checksum": (tar(tarred(b"a", checksum=b"0000000\0")), "archive_damaged", None),
    "tar: a name twice": (tar(tarred(b"a"), tarred(b"./a")), "duplicate_name", "a"),
    "tar: upper and lower case": (tar(tarred(b"a"), tarred(b"A")), "case_collision", "A"),
    "tar: cut": (tar(tarred(b"a", NOISE))[:2000], "archive_damaged", "a"),
    "tar: no end": (tarred(b"a", NOISE), "archive_damaged", None),
    "tar: rest": (tar(tarred(b"a")) + tar(tarred(b"hidden")), "archive_damaged", None),
    "tar: bomb": (tgz(tarred(b"bomb", bytes(2**19))), "archive_bomb", "bomb"),
    "tar: tar inside": (tar(tarred(b"inner.png", tar(tarred(b"a")))), "nested_archive", "inner.png"),
    "tar: gzip inside": (tgz(tarred(b"a.png", tgz(tarred(b"b")))), "nested_archive", "a.png"),
    "tar.gz: cut": (tgz(tarred(b"a", NOISE))[:-20], "archive_damaged", None),
    "tar.gz: damaged": (tgz(tarred(b"a", NOISE)).replace(b"\0\0", b"\1\1"), "archive_damaged", None),
    "neither": (b"\x89PNG\r\n\x1a\n" + bytes(600), "no_archive", None),
    "nothing": (b"", "no_archive", None),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_and_nothing_is_written_outside(attack: str, tmp_path: Path) -> None:
    content, code, member = ATTACKS[attack]
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    with pytest.raises(ArchiveRefused) as caught:
        extract(archive, folder, LIMITS)
    assert caught.value.code == code, caught.value
    if member is not None:
        assert caught.value.member == member, caught.value
    outside = {path for path in tmp_path.rglob("*") if folder not in path.parents} - {archive, *folder.parents}
    assert outside - {folder} == set()
    assert all(path.name.isdigit() and path.is_file() for path in folder.iterdir())
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LIMITS.total_bytes


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("zip: reaches into the directory", "1,000,000 bytes, which the archive has no room for"),
        ("zip: zip64 directory lies", "its directory does not end where its end begins"),
        ("zip: says that it is small", "more than the 10 bytes"),
        ("zip: says that it is large", "it has 7 bytes, the archive announces 70"),
        ("zip: headers contradict", "different sizes"),
        ("zip: fewer members announced", "more than the 1 members"),
        ("zip: rest", "something follows behind the end"),
        ("tar: name of a gigabyte", "has 1,073,741,824 bytes, at most 65,536 are read"),
        ("tar: no checksum", "wrong checksum"),
        ("tar: rest", "something follows behind its end"),
    ],
)
def test_the_reason_is_the_first_thing_that_is_wrong(attack: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(ATTACKS[attack][0])
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveRefused, match=reason):
        extract(tmp_path / "archive", tmp_path / "out", LIMITS)


def tree() -> dict[str, bytes]:
    return {
        "set/train/cat/1.png": NOISE,
        "set/train/cat/ü ñ.png": b"",
        f"set/train/{'long' * 20}/{'name' * 20}.png": NOISE * 3,
        "set/readme": b"text",
    }


def written_zips(tmp_path: Path) -> Iterator[Path]:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        archive = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(archive, "w", method) as file:
            file.mkdir("set")
            for name, content in tree().items():
                file.writestr(name, content)
        yield archive
    archive = tmp_path / "streamed.zip"
    with archive.open("wb") as raw, zipfile.ZipFile(Unseekable(raw), "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in tree().items():
            with file.open(name, "w", force_zip64=True) as member:
                member.write(content)
    yield archive


class Unseekable(io.RawIOBase):
    """Makes zipfile write data descriptors behind the members."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        return self._file.write(content)


def written_tars(tmp_path: Path) -> Iterator[Path]:
    for name, form in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        for mode in ("w", "w:gz"):
            archive = tmp_path / f"{name}.{mode[-2:]}"
            with tarfile.open(archive, mode, format=form) as file:  # type: ignore[call-overload]
                folder = tarfile.TarInfo("set")
                folder.type = tarfile.DIRTYPE
                file.addfile(folder)
                for member_name, content in tree().items():
                    member = tarfile.TarInfo(member_name)
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
            yield archive


def test_what_ordinary_programs_write_is_read(tmp_path: Path) -> None:
    for number, archive in enumerate([*written_zips(tmp_path), *written_tars(tmp_path)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        members = extract(archive, folder, LIMITS).members
        assert {member.name: member.path.read_bytes() for member in members} == tree(), archive
        assert sorted(os.listdir(folder)) == [f"{index:08}" for index in range(len(members))]


def test_tar_of_the_system_with_a_dot_for_its_root(tmp_path: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "1.png").write_bytes(NOISE)
    subprocess.run(["tar", "czf", tmp_path / "set.tgz", "-C", tmp_path / "set", "."], check=True)
    folder = tmp_path / "out"
    folder.mkdir()
    assert [member.name for member in extract(tmp_path / "set.tgz", folder, LIMITS).members] == ["cat/1.png"]


def test_gzip_files_where_they_are_expected(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(tarred(b"labels.gz", tgz(tarred(b"x")))))
    (tmp_path / "out").mkdir()
    assert len(extract(tmp_path / "a.tar", tmp_path / "out", LIMITS, may_compress=True).members) == 1


def test_a_bomb_costs_neither_memory_nor_disk(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, read by a process that may not have 200 MB."""
    archive = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("bomb", "w", force_zip64=True) as member,
    ):
        for _ in range(256):
            member.write(bytes(2**22))
    (tmp_path / "out").mkdir()
    program = """
import resource, sys
from pathlib import Path
from worker.datasets.archive import extract
from worker.datasets.extraction import ArchiveRefused, Limits
resource.setrlimit(resource.RLIMIT_AS, (2 * 10**8, 2 * 10**8))
try:
    extract(Path(sys.argv[1]), Path(sys.argv[2]), Limits())
except ArchiveRefused as error:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(error.code, peak.split()[1])
"""
    arguments = [sys.executable, "-c", program, str(archive), str(tmp_path / "out")]
    code, kilobytes = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    assert code == "archive_bomb"
    assert int(kilobytes) < 60_000
    limits = Limits()
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written <= limits.free_bytes + limits.ratio * archive.stat().st_size
