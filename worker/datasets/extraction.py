"""What an archive may hold, and where its members go: files with names of our own, counted while they are written.

Nothing of an archive decides where on the disk something is written, and no number in it is believed.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from worker.datasets.naming import quoted

CHUNK_BYTES = 2**18
MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255


class ArchiveRefused(Exception):
    """An archive has something that is not accepted; `member` is the name of the file in it, where it is one."""

    def __init__(self, code: str, message: str, member: str | None = None) -> None:
        super().__init__(message if member is None else f"{quoted(member)}: {message}")
        self.code = code
        self.member = member


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    members: int = 1_000_000
    member_bytes: int = 2**32
    total_bytes: int = 2**35
    ratio: int = 100
    """Bytes that come out for each byte of the archive, beyond `free_bytes`."""
    free_bytes: int = 2**26


@dataclass(frozen=True)
class Member:
    """A file of an archive: its name there, and where its content is now."""

    name: str
    path: Path

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("/"))


MAGIC = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)
_TAR_MAGIC = slice(257, 262), b"ustar"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def checked_name(name: str) -> str:
    """The name of a member as we keep it: relative, with `/`, in normal form C, without a leading `./` or final `/`.

    Raises:
        ArchiveRefused: it leads out of the archive, or has characters that hide what it is.
    """
    if _CONTROL.search(name):
        raise ArchiveRefused("odd_name", "the name has control characters", name)
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        raise ArchiveRefused("unsafe_path", "expected a relative path with /, got one of Windows", name)
    if name.startswith("/"):
        raise ArchiveRefused("unsafe_path", "expected a relative path, got an absolute one", name)
    kept = unicodedata.normalize("NFC", name.removeprefix("./").removesuffix("/"))
    parts = kept.split("/")
    if ".." in parts:
        raise ArchiveRefused("unsafe_path", "the path leads out of its folder", name)
    if "" in parts or "." in parts:
        raise ArchiveRefused("odd_name", "expected a path without empty parts", name)
    if len(kept.encode()) > MAX_NAME_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        message = f"the name is longer than {MAX_NAME_BYTES} bytes, or a part of it than {MAX_PART_BYTES}"
        raise ArchiveRefused("name_too_long", message, name)
    return kept


class Extraction:
    """Takes in the members of one archive.

    Args:
        folder: where they go; nobody else writes there.
        archive_bytes: size of the archive, which the ratio is counted by.
        may_compress: whether members may be gzip files, as those of MNIST are.
    """

    def __init__(self, folder: Path, limits: Limits, archive_bytes: int, *, may_compress: bool = False) -> None:
        self.members: list[Member] = []
        self.folders: list[str] = []
        self.limits = limits
        self._folder = folder
        self._may_compress = may_compress
        self._most = min(limits.total_bytes, limits.free_bytes + limits.ratio * archive_bytes)
        self._total = 0
        self._taken: dict[str, str] = {}
        """Names without case, and how they were written: of files, and of the folders that they are in."""
        self._files: set[str] = set()

    def claim(self, name: str, *, is_folder: bool = False) -> str:
        """Check a name against all before it, and return it as it is kept.

        Raises:
            ArchiveRefused: the name is unsafe, or taken.
        """
        kept = checked_name(name)
        if kept in self._files or (not is_folder and self._taken.get(kept.casefold()) == kept):
            raise ArchiveRefused("duplicate_name", "the archive has two members of this name", kept)
        if len(self._files) >= self.limits.members:
            raise ArchiveRefused("too_many_members", f"the archive has more than {self.limits.members:,} files", kept)
        if is_folder:
            self.folders.append(kept)
        parts = kept.split("/")
        for depth in range(1, len(parts) + 1):
            self._claim_path("/".join(parts[:depth]), is_file=depth == len(parts) and not is_folder)
        return kept

    def _claim_path(self, path: str, *, is_file: bool) -> None:
        before = self._taken.setdefault(path.casefold(), path)
        if before != path:
            message = f"it differs from {quoted(before)} in upper and lower case only"
            raise ArchiveRefused("case_collision", message, path)
        if path in self._files:
            raise ArchiveRefused("duplicate_name", "the archive has a file and a folder of this name", path)
        if is_file:
            self._files.add(path)

    def open(self, name: str) -> MemberWriter:
        """Where to write the content of a member, whose name has been claimed."""
        return MemberWriter(self, Member(name, self._folder / f"{len(self.members):08}"))

    def count(self, member: Member, num_bytes: int, before: int) -> None:
        """Raises ArchiveRefused when the archive becomes larger than it may."""
        self._total += num_bytes
        if before + num_bytes > self.limits.member_bytes:
            message = f"it is larger than {self.limits.member_bytes:,} bytes"
            raise ArchiveRefused("member_too_large", message, member.name)
        if self._total > self._most:
            message = (
                f"the archive grows to more than {self._most:,} bytes when it is unpacked (at most "
                f"{self.limits.total_bytes:,}, and beyond {self.limits.free_bytes:,} at most {self.limits.ratio} times "
                "its own size)"
            )
            raise ArchiveRefused("archive_bomb", message, member.name)

    def check_start(self, member: Member, start: bytes) -> None:
        """Raises ArchiveRefused when a member is an archive itself."""
        is_gzip = start.startswith(b"\x1f\x8b")
        where, magic = _TAR_MAGIC
        if (start.startswith(MAGIC) and not (is_gzip and self._may_compress)) or start[where] == magic:
            raise ArchiveRefused("nested_archive", "it is an archive inside the archive", member.name)


class MemberWriter:
    """The file that a member becomes; it is one of the extraction's members when the block ends well."""

    def __init__(self, extraction: Extraction, member: Member) -> None:
        self.num_bytes = 0
        self._extraction = extraction
        self._member = member
        self._start = b""
        self._file: BinaryIO = member.path.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._extraction.check_start(self._member, self._start)
            self._extraction.members.append(self._member)

    def write(self, chunk: bytes) -> None:
        self._extraction.count(self._member, len(chunk), self.num_bytes)
        self.num_bytes += len(chunk)
        if len(self._start) < 512:
            self._start += chunk[: 512 - len(self._start)]
        self._file.write(chunk)


def size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
