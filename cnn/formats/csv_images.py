"""A table of image files and their labels, in CSV (RFC 4180)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from cnn.errors import DataCorrupt

MAX_TABLE_BYTES = 2**28
SPLITS = ("train", "test")


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns in the first row; without a `split` column all rows are one split."""

    file: str = "file"
    label: str = "label"
    split: str = "split"


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    file: str
    label: str
    split: str | None
    """`train` or `test`; None when the table does not say."""


def read_table(path: Path, name: str, columns: Columns) -> list[Row]:
    """The rows of a table in UTF-8 with commas, semicolons or tabs.

    Args:
        name: how errors call the file.

    Raises:
        DataCorrupt: with the line, where a line is wrong.
    """
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DataCorrupt(f"{name}: expected a table of at most {MAX_TABLE_BYTES:,} bytes")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataCorrupt(f"{name}: expected UTF-8, got a byte that is not at {error.start}") from error
    if "\0" in text:
        raise DataCorrupt(f"{name}: expected text, got a NUL character")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return _rows(reader, name, columns)
    except csv.Error as error:
        raise DataCorrupt(f"{name}: line {reader.line_num}: {error}") from error


def _rows(reader: csv.DictReader[str], name: str, columns: Columns) -> list[Row]:
    found = list(reader.fieldnames or ())
    missing = [column for column in (columns.file, columns.label) if found.count(column) != 1]
    if missing:
        raise DataCorrupt(f"{name}: expected one column {' and one '.join(missing)}; the first row has {found}")
    rows: list[Row] = []
    has_split = columns.split in found
    for fields in reader:
        line = reader.line_num
        if None in fields or None in fields.values():
            raise DataCorrupt(f"{name}: line {line}: expected {len(found)} values, got another number")
        file, label = fields[columns.file].strip(), fields[columns.label].strip()
        split = fields[columns.split].strip().lower() if has_split else None
        if not file or not label:
            raise DataCorrupt(f"{name}: line {line}: expected a file and a label, got {file!r} and {label!r}")
        if split is not None and split not in SPLITS:
            raise DataCorrupt(f"{name}: line {line}: expected train or test in column {columns.split}, got {split!r}")
        rows.append(Row(line, file, label, split))
    if not rows:
        raise DataCorrupt(f"{name}: there are no rows")
    return rows
