"""Which of an archive's files are images, of which class, and in which split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnn.errors import DataCorrupt
from cnn.formats.csv_images import SPLITS, Columns, Row, read_table
from cnn.formats.image_folder import SUFFIXES
from worker.datasets.extraction import Extraction, Member
from worker.datasets.findings import Report
from worker.datasets.formats import CSV, ImageFolder
from worker.datasets.naming import quoted

LEFT_BY_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini")
ALL = "all"
"""The split of images that are divided by `test_fraction`."""
UNDIVIDED = "images that are not divided need test_fraction, such as 0.2"


@dataclass(frozen=True, slots=True)
class Sample:
    member: Member
    label: int
    split: str
    """`train`, `test`, or `all`."""


@dataclass(frozen=True, slots=True)
class Layout:
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]


def relevant(extraction: Extraction, report: Report) -> list[Member]:
    """The members that are no hidden files and not left by systems, sorted by name."""
    kept = [member for member in extraction.members if not _is_ignored(member.name)]
    report.num_ignored = len(extraction.members) - len(kept)
    return sorted(kept, key=lambda member: member.parts)


def folder_layout(extraction: Extraction, wanted: ImageFolder, report: Report) -> Layout:
    """By folders: `<split>/<class>/<image>`, or `<class>/<image>`.

    Raises:
        Refused: the report says why.
    """
    divided = wanted.test_fraction is None
    depth = 3 if divided else 2
    form = "train/<class>/<image> and test/<class>/<image>" if divided else "<class>/<image>"
    advice = f"; {UNDIVIDED}" if divided else ""
    members, prefix = _unwrapped(relevant(extraction, report), depth)
    misplaced = [member.name for member in members if len(_below(member, prefix)) != depth]
    if misplaced:
        report.error("unexpected_file", f"expected files as {form} only{advice}", misplaced)
    members = [member for member in members if len(_below(member, prefix)) == depth]
    _require_images(members, report)
    if divided and members:
        _check_splits({_below(member, prefix)[0] for member in members}, report)
    report.stop_if_refused()
    rows = [((_below(m, prefix)[0] if divided else ALL), _below(m, prefix)[-2], m) for m in members]
    classes = tuple(sorted({label for split, label, _ in rows if split != "test"}))
    folders = [folder for folder in extraction.folders if not _is_ignored(folder)]
    _check_empty_folders(folders, members, prefix, depth, report)
    samples = _samples(rows, classes, report, lambda label: f"the folder {quoted(label)} of test is not in train")
    return Layout(classes, samples)


def table_layout(extraction: Extraction, wanted: CSV, report: Report) -> Layout:
    """By the archive's one table.

    Raises:
        Refused: the report says why.
    """
    members = relevant(extraction, report)
    tables = [member for member in members if member.name.lower().endswith((".csv", ".tsv"))]
    if len(tables) != 1:
        report.error("no_table", "expected one .csv file in the archive", [member.name for member in tables])
        report.stop_if_refused()
    table = tables[0]
    images = [member for member in members if member is not table]
    columns = Columns(wanted.file_column, wanted.label_column, wanted.split_column)
    try:
        rows = read_table(table.path, table.name, columns)
    except DataCorrupt as error:
        report.error("bad_table", error.message, [table.name])
        report.stop_if_refused()
    folder = table.parts[:-1]
    found = {"/".join(member.parts): member for member in images}
    named = {row: found.get(_resolved(folder, row.file)) for row in rows}
    _check_rows(named, images, report)
    if wanted.test_fraction is None:
        _check_splits({row.split or "" for row in rows}, report, f"column {quoted(wanted.split_column)}")
    report.stop_if_refused()
    triples = [
        (ALL if wanted.test_fraction is not None else str(row.split), row.label, member)
        for row, member in named.items()
        if member is not None
    ]
    _require_images([member for _, _, member in triples], report)
    classes = tuple(sorted({label for split, label, _ in triples if split != "test"}, key=_numbers_first))
    samples = _samples(triples, classes, report, lambda label: f"the label {quoted(label)} of test is not in train")
    return Layout(classes, tuple(sorted(samples, key=lambda sample: sample.member.parts)))


def _is_ignored(name: str) -> bool:
    return any(part.startswith(".") or part in LEFT_BY_SYSTEMS for part in name.split("/"))


def _unwrapped(members: list[Member], depth: int) -> tuple[list[Member], int]:
    """And how many folders stand around all of them."""
    prefix = 0
    while members and len({member.parts[: prefix + 1] for member in members}) == 1:
        if max(len(member.parts) for member in members) - prefix <= depth:
            break
        prefix += 1
    return members, prefix


def _below(member: Member, prefix: int) -> tuple[str, ...]:
    return member.parts[prefix:]


def _require_images(members: Sequence[Member], report: Report) -> None:
    others = [member.name for member in members if not member.name.lower().endswith(SUFFIXES)]
    if others:
        report.error("unexpected_file", f"expected image files only ({', '.join(SUFFIXES)})", others)
    if not members:
        report.error("no_images", "there are no images where they are expected")


def _check_splits(found: set[str], report: Report, where: str = "the folders") -> None:
    if found == set(SPLITS):
        return
    message = f"expected the splits train and test in {where}, got {', '.join(sorted(found)) or 'none'}"
    if found & set(SPLITS):
        message += "; a validation split is a part of train (split.val_fraction of a spec makes one)"
    report.error("wrong_splits", f"{message}; {UNDIVIDED}")
    report.stop_if_refused()


def _check_empty_folders(
    folders: Sequence[str], members: Sequence[Member], prefix: int, depth: int, report: Report
) -> None:
    full = {member.parts[:-1] for member in members}
    empty = [
        name for name in folders if len(name.split("/")) - prefix == depth - 1 and tuple(name.split("/")) not in full
    ]
    if empty:
        report.warning("empty_class", "these folders have no images, and so are no classes", sorted(empty))


def _samples(
    rows: Sequence[tuple[str, str, Member]], classes: tuple[str, ...], report: Report, unknown: Callable[[str], str]
) -> tuple[Sample, ...]:
    numbers = {label: number for number, label in enumerate(classes)}
    strange: dict[str, list[str]] = {}
    for _, label, member in rows:
        if label not in numbers:
            strange.setdefault(label, []).append(member.name)
    for label, names in strange.items():
        report.error("unknown_class", unknown(label), names)
    if len(classes) < 2:
        report.error("one_class", f"expected two or more classes, got {', '.join(classes) or 'none'}")
    report.stop_if_refused()
    tested = {label for split, label, _ in rows if split == "test"}
    if tested and tested != set(classes):
        report.warning("class_without_test_images", "these classes have no test images", sorted(set(classes) - tested))
    return tuple(Sample(member, numbers[label], split) for split, label, member in rows)


def _check_rows(named: dict[Row, Member | None], images: Sequence[Member], report: Report) -> None:
    missing = [f"{row.file} (line {row.line})" for row, member in named.items() if member is None]
    if missing:
        report.error("missing_file", "the table names files that the archive does not have", missing)
    lines: dict[str, list[Row]] = {}
    for row, member in named.items():
        if member is not None:
            lines.setdefault(member.name, []).append(row)
    several = [
        f"{name} (lines {', '.join(str(row.line) for row in found)})" for name, found in lines.items() if len(found) > 1
    ]
    if several:
        report.error("several_rows", "the table has more than one row for these files", several)
    unlisted = [member.name for member in images if member.name not in lines]
    if unlisted:
        report.warning("unlisted_file", "the table does not name these files, which are left out", unlisted)


def _resolved(folder: Sequence[str], file: str) -> str:
    """The member's name that a table's relative path means; what leads out of the archive is the name of none."""
    return "/".join((*folder, *(part for part in file.replace("\\", "/").split("/") if part != ".")))


def _numbers_first(label: str) -> tuple[bool, int, str]:
    is_number = label.isascii() and label.isdecimal() and len(label) < 19
    return not is_number, int(label) if is_number else 0, label
