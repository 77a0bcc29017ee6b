"""Extracts what users upload, whatever kind of archive it is."""

from __future__ import annotations

from pathlib import Path

from worker.datasets.extraction import ArchiveRefused, Extraction, Limits
from worker.datasets.tar_reader import GZIP, read_tar
from worker.datasets.zip_reader import read_zip

ZIP_STARTS = (b"PK\3\4", b"PK\5\6")
TAR_MAGIC = slice(257, 262)


def extract(archive: Path, folder: Path, limits: Limits, *, may_compress: bool = False) -> Extraction:
    """The files of a zip, tar or gzipped tar archive, in its order, written to names of our own in an empty folder.

    Args:
        may_compress: whether files of the archive may be gzip files.

    Raises:
        ArchiveRefused: it is none, is damaged, or has something that is not accepted.
    """
    extraction = Extraction(folder, limits, archive.stat().st_size, may_compress=may_compress)
    with archive.open("rb") as file:
        start = file.read(512)
    if start.startswith(ZIP_STARTS):
        read_zip(archive, extraction)
    elif start.startswith(GZIP) or start[TAR_MAGIC] == b"ustar":
        read_tar(archive, extraction)
    else:
        raise ArchiveRefused("no_archive", "expected a zip, tar or tar.gz archive, got something else")
    if not extraction.members:
        raise ArchiveRefused("empty_archive", "the archive has no files")
    return extraction
