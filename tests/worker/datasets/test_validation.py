"""Datasets with faults that were put into them: each is refused or reported, with the file named."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn.data import read_decoded
from cnn.local_datasets import ImageFolder as LocalFolder
from tests.cnn.formats.written import IDX_NAMES, TEST_LABELS, TRAIN_LABELS, idx_bytes, npz_file, pictures
from tests.cnn.formats.written import image_folder as write_image_folder
from tests.worker.datasets.attacks import tarred, tgz
from worker.datasets.formats import CSV, IDX, NPZ, Format, ImageFolder
from worker.datasets.validation import validate
from worker.settings import trainer_environment

MAX_BYTES = 2**20
Files = dict[str, bytes]


def png(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", **options: Any) -> bytes:
    """A picture with a pattern, of which each value gives another one."""
    rows = np.arange(size[0] * size[1], dtype=np.uint32).reshape(size) * (value + 1) % 251
    pixels = np.stack([rows, (rows + value) % 256, rows // 2], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, **{"format": "PNG", **options})
    return file.getvalue()


def good() -> Files:
    splits = {"train": 4, "test": 2}
    places = [(split, label, i) for split, count in splits.items() for label in ("ant", "bee") for i in range(count)]
    return {f"{split}/{label}/{index}.png": png(number) for number, (split, label, index) in enumerate(places)}


def zip_of(files: Mapping[str, bytes], folders: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for folder in folders:
            archive.mkdir(folder)
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def run(tmp_path: Path, content: bytes, wanted: Format, name: str = "set.zip") -> dict[str, Any]:
    upload, folder = tmp_path / "upload", tmp_path / "folder"
    upload.write_bytes(content)
    folder.mkdir()
    return validate(upload, name, wanted, folder, MAX_BYTES)


def finding(result: dict[str, Any], code: str) -> dict[str, Any]:
    found = {item["code"]: item for item in json.loads(json.dumps(result["report"]))["findings"]}
    assert code in found, found
    return found[code]


def bomb_png() -> bytes:
    """A header that announces 60,000 x 60,000 pixels."""
    header = struct.pack(">2L5B", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">L4s", len(header), b"IHDR") + header
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">L", zlib.crc32(chunk[4:]))
        + struct.pack(">L4s", len(data), b"IDAT") + data + struct.pack(">L", zlib.crc32(b"IDAT" + data))
    )  # fmt: skip


FIRST = "train/ant/0.png"
DIVIDED, WHOLE = ImageFolder(), ImageFolder(test_fraction=0.25)

REFUSED: dict[str, tuple[Callable[[Files], object], Format, str, str]] = {
    "cut image": (lambda f: f.update({FIRST: f[FIRST][:-40]}), DIVIDED, "unreadable_image", FIRST),
    "no image": (lambda f: f.update({FIRST: b"no image"}), DIVIDED, "unreadable_image", FIRST),
    "empty file": (lambda f: f.update({FIRST: b""}), DIVIDED, "unreadable_image", FIRST),
    "16 bits": (lambda f: f.update({FIRST: png(1, mode="I;16")}), DIVIDED, "unreadable_image", FIRST),
    "image bomb": (lambda f: f.update({FIRST: bomb_png()}), DIVIDED, "unreadable_image", FIRST),
    "gif under another name": (lambda f: f.update({FIRST: png(1, format="GIF")}), DIVIDED, "unreadable_image", FIRST),
    "another size": (lambda f: f.update({FIRST: png(1, (9, 8))}), DIVIDED, "sizes_differ", FIRST),
    "text among images": (lambda f: f.update({"train/ant/notes.txt": b"x"}), DIVIDED, "unexpected_file", "notes.txt"),
    "image above the classes": (lambda f: f.update({"train/x.png": png(9)}), DIVIDED, "unexpected_file", "train/x.png"),
    "no test": (lambda f: [f.pop(n) for n in list(f) if n.startswith("test")], DIVIDED, "wrong_splits", ""),
    "val beside test": (lambda f: f.update({"val/ant/1.png": png(40)}), DIVIDED, "wrong_splits", ""),
    "class only in test": (lambda f: f.update({"test/cow/1.png": png(40)}), DIVIDED, "unknown_class", "test/cow/1.png"),
    "one class": (lambda f: [f.pop(n) for n in list(f) if "bee" in n], DIVIDED, "one_class", ""),
    "splits taken for classes": (dict, WHOLE, "unexpected_file", "test/ant/0.png"),
    "script": (lambda f: f.update({"train/ant/x.php": b"<?php"}), DIVIDED, "unexpected_file", "x.php"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_faults_of_image_folders_are_refused(fault: str, tmp_path: Path) -> None:
    change, wanted, code, file = REFUSED[fault]
    files = good()
    change(files)
    result = run(tmp_path, zip_of(files), wanted)
    item = finding(result, code)
    assert result["content"] is None
    assert (item["severity"], file in item["message"]) == ("error", True), item
    assert not file or any(file in name for name in item["files"])
    assert str(tmp_path) not in json.dumps(result)


@pytest.mark.parametrize(("around", "code"), [("", "unexpected_file"), ("pets/", "wrong_splits")])
def test_who_has_not_divided_is_told_of_test_fraction(around: str, code: str, tmp_path: Path) -> None:
    files = {f"{around}{label}/{number}.png": png(number) for label in ("ant", "bee") for number in range(4)}
    result = run(tmp_path, zip_of(files), DIVIDED)
    assert "need test_fraction, such as 0.2" in finding(result, code)["message"]


REPORTED: dict[str, tuple[Callable[[Files], object], str, str]] = {
    "leakage": (lambda f: f.update({"test/ant/0.png": f[FIRST]}), "leakage", f"{FIRST} = test/ant/0.png"),
    "leakage of re-encoded pixels": (
        lambda f: f.update({"test/ant/0.png": png(0, compress_level=0)}), "leakage", f"{FIRST} = test/ant/0.png",
    ),
    "duplicates": (lambda f: f.update({"train/ant/1.png": f[FIRST]}), "duplicate_images", f"{FIRST} = train/ant/1.png"),
    "conflict": (
        lambda f: f.update({"train/bee/1.png": f[FIRST]}), "label_conflict", f"{FIRST} (ant) = train/bee/1.png (bee)",
    ),
    "conflict across splits": (
        lambda f: f.update({"test/bee/1.png": f[FIRST]}), "label_conflict", f"{FIRST} (ant) = test/bee/1.png (bee)",
    ),
    "blank": (lambda f: f.update({FIRST: blank()}), "blank_images", FIRST),
    "transparent": (lambda f: f.update({FIRST: png(1, mode="RGBA")}), "transparency", FIRST),
    "animated": (
        lambda f: f.update({FIRST: png(0, save_all=True, append_images=[Image.new("RGB", (8, 8))])}),
        "several_frames", FIRST,
    ),
    "turned": (lambda f: f.update({FIRST: png(0, exif=turned())}), "turned", FIRST),
    "class without test images": (
        lambda f: [f.pop(n) for n in list(f) if n.startswith("test/bee")], "class_without_test_images", "bee",
    ),
}  # fmt: skip


def blank() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "PNG")
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("fault", REPORTED)
def test_what_is_suspicious_is_reported_and_accepted(fault: str, tmp_path: Path) -> None:
    change, code, file = REPORTED[fault]
    files = good()
    change(files)
    result = run(tmp_path, zip_of(files), DIVIDED)
    item = finding(result, code)
    assert (item["severity"], item["files"], item["count"]) == ("warning", [file], 1)
    assert result["content"]["num_train"] == 8


def test_a_good_dataset_has_no_findings(tmp_path: Path) -> None:
    result = run(tmp_path, zip_of({f"my set/{name}": content for name, content in good().items()}), DIVIDED)
    assert result["report"] == {
        "findings": [],
        "splits": {
            "train": {"num_images": 8, "per_class": {"ant": 4, "bee": 4}},
            "test": {"num_images": 4, "per_class": {"ant": 2, "bee": 2}},
        },
        "sizes": {"8x8": 12},
        "num_ignored": 0,
    }
    content = result["content"]
    assert (content["shape"], content["labels"], content["num_train"], content["num_test"]) == (
        (3, 8, 8), ("ant", "bee"), 8, 4
    )  # fmt: skip
    data = read_decoded(tmp_path / "folder" / "arrays")
    assert data.digest == content["digest"]
    assert np.array_equal(data.train_images[4], np.asarray(Image.open(io.BytesIO(png(4)))).transpose(2, 0, 1))
    with Image.open(tmp_path / "folder" / "arrays" / "samples.png") as sheet:
        assert sheet.format == "PNG"


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    files = good() | {"train/ant/0.png": b"x", "test/bee/1.png": b"y"}
    item = finding(run(tmp_path, zip_of(files), DIVIDED), "unreadable_image")
    assert item["count"] == 2
    assert [name.partition(" ")[0] for name in item["files"]] == ["test/bee/1.png", "train/ant/0.png"]


def test_what_systems_leave_and_empty_folders(tmp_path: Path) -> None:
    files = good() | {".DS_Store": b"x", "__MACOSX/train/ant/._0.png": b"x", "train/ant/Thumbs.db": b"x"}
    result = run(tmp_path, zip_of(files, ("train/cow",)), DIVIDED)
    assert result["report"]["num_ignored"] == 3
    assert finding(result, "empty_class")["files"] == ["train/cow"]
    assert result["content"]["labels"] == ("ant", "bee")


def test_images_are_resized_and_divided_as_those_of_a_local_folder(tmp_path: Path) -> None:
    local = write_image_folder(tmp_path / "local") / "train"
    files = {path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*.png")}
    wanted = ImageFolder(image_size=(6, 5), channels=1, test_fraction=0.2)
    result = run(tmp_path, zip_of(files), wanted)
    same = LocalFolder(path=local, image_size=(6, 5), channels=1, test_fraction=0.2).load(tmp_path / "data")
    assert result["content"]["digest"] == same.digest
    assert (result["content"]["num_train"], result["content"]["num_test"]) == (24, 6)


def test_a_dataset_that_is_too_large_once_decoded(tmp_path: Path) -> None:
    result = run(tmp_path, zip_of(good()), ImageFolder(image_size=(1000, 1000)))
    assert "12 images of 1000x1000 pixels in 3 channels are 36,000,000 bytes" in finding(result, "too_large")["message"]


def table(rows: list[str], **files: bytes) -> bytes:
    images = {f"images/{index}.png": png(index) for index in range(6)}
    return zip_of({"set/labels.csv": "\n".join(rows).encode(), **{f"set/{k}": v for k, v in images.items()}, **files})


ROWS = [
    "file,label,split",
    *(f"images/{i}.png,{'ant' if i % 2 else 'bee'},{'train' if i < 4 else 'test'}" for i in range(6)),
]


def test_a_table_of_images(tmp_path: Path) -> None:
    result = run(tmp_path, table(ROWS), CSV())
    assert result["report"]["findings"] == []
    assert result["report"]["splits"]["train"] == {"num_images": 4, "per_class": {"ant": 2, "bee": 2}}
    data = read_decoded(tmp_path / "folder" / "arrays")
    assert data.train_labels.tolist() == [1, 0, 1, 0]


def test_numbers_as_labels_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    rows = ["name;class", *(f"images/{i}.png;{(9, 10, 100)[i % 3]}" for i in range(6))]
    wanted = CSV(file_column="name", label_column="class", test_fraction=0.5)
    assert run(tmp_path, table(rows), wanted)["content"]["labels"] == ("9", "10", "100")


@pytest.mark.parametrize(
    ("rows", "code", "told"),
    [
        ([*ROWS, "images/7.png,ant,train"], "missing_file", "images/7.png (line 8)"),
        ([*ROWS, "../../etc/passwd,ant,train"], "missing_file", "../../etc/passwd (line 8)"),
        ([*ROWS, "images/0.png,ant,train"], "several_rows", "images/0.png (lines 2, 8)"),
        ([*ROWS[:-1], "images/5.png,ant,dev"], "bad_table", "line 7: expected train or test"),
        ([*ROWS[:-1], "images/5.png,,test"], "bad_table", "line 7: expected a file and a label"),
        ([*ROWS[:-1], "images/5.png"], "bad_table", "line 7: expected 3 values"),
        (["path,label", *ROWS[1:]], "bad_table", "expected one column file"),
        ([*ROWS[:-1], "images/5.png,cow,test"], "unknown_class", "images/5.png"),
        ([*ROWS[:-1], 'images/5.png,"ant,test'], "bad_table", "unexpected end of data"),
        (ROWS[:1], "bad_table", "no rows"),
        ([row.replace("test", "train") for row in ROWS], "wrong_splits", "got train"),
    ],
)
def test_faults_of_tables_are_refused(rows: list[str], code: str, told: str, tmp_path: Path) -> None:
    result = run(tmp_path, table(rows), CSV())
    item = finding(result, code)
    assert result["content"] is None
    assert told in item["message"]


def test_images_without_a_row_are_reported(tmp_path: Path) -> None:
    result = run(tmp_path, table(ROWS[:-1]), CSV(test_fraction=0.4))
    assert finding(result, "unlisted_file")["files"] == ["set/images/5.png"]
    assert result["content"]["num_train"] == 3


def npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_an_npz_file(tmp_path: Path) -> None:
    result = run(tmp_path, npz_file(tmp_path / "a.npz").read_bytes(), NPZ())
    assert result["report"]["splits"]["test"] == {"num_images": 9, "per_class": {"0": 3, "1": 3, "2": 3}}
    assert (result["content"]["shape"], result["content"]["labels"]) == ((1, 8, 8), ("0", "1", "2"))


IMAGES, LABELS = pictures(TRAIN_LABELS), TRAIN_LABELS


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (npz(images=IMAGES, labels=LABELS)[:-50], "archive_damaged", "cut off"),
        (npz(images=IMAGES.astype(float), labels=LABELS), "data_corrupt", "set.npz: images: expected uint8"),
        (npz(images=IMAGES), "data_corrupt", "there is no array labels"),
        (npz(images=IMAGES, labels=LABELS[1:]), "data_corrupt", "30 images and 29 labels"),
        (npz(images=IMAGES, labels=LABELS - 1), "data_corrupt", "expected class numbers from 0"),
        (npz(images=IMAGES, labels=LABELS * 2), "class_without_images", '"1", "3"'),
        (npz(images=np.array([{}] * 30), labels=LABELS), "data_corrupt", "expected uint8"),
        (npz(images=np.zeros((2**10, 40, 40), np.uint8), labels=np.zeros(2**10, int)), "too_large", "set.npz"),
    ],
)
def test_faults_of_npz_files_are_refused(content: bytes, code: str, told: str, tmp_path: Path) -> None:
    result = run(tmp_path, content, NPZ(test_fraction=0.2), "set.npz")
    assert result["content"] is None
    assert told in finding(result, code)["message"]
    assert str(tmp_path) not in json.dumps(result)


def idx_files() -> Files:
    parts = (pictures(TRAIN_LABELS), TRAIN_LABELS, pictures(TEST_LABELS), TEST_LABELS)
    return {f"mnist/{name}": idx_bytes(part.astype(np.uint8)) for name, part in zip(IDX_NAMES, parts, strict=True)}


def test_idx_files_gzipped_or_not(tmp_path: Path) -> None:
    files = idx_files()
    labels = "mnist/train-labels-idx1-ubyte"
    files[f"{labels}.gz"] = gzip.compress(files.pop(labels))
    content = tgz(*(tarred(name.encode(), value) for name, value in files.items()))
    result = run(tmp_path, content, IDX())
    assert result["report"]["findings"] == []
    assert (result["content"]["shape"], result["content"]["num_train"]) == ((1, 8, 8), 30)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (lambda f: f.pop("mnist/t10k-labels-idx1-ubyte"), "dataset_missing", "missing: t10k-labels-idx1-ubyte"),
        (lambda f: f.update({"mnist/evil.py": b""}), "unexpected_file", "mnist/evil.py"),
        (lambda f: f.update({"mnist/train-images-idx3-ubyte": b"\0\0\x08\x03" + b"\xff" * 12}), "too_large",
         "train-images-idx3-ubyte"),
        (lambda f: f.update({"mnist/train-images-idx3-ubyte": f["mnist/train-images-idx3-ubyte"][:-1]}),
         "data_corrupt", "train-images-idx3-ubyte"),
        (lambda f: f.update({"mnist/train-labels-idx1-ubyte": b"\1\2\3\4"}), "data_corrupt", "train-labels-idx1-ubyte"),
    ],
)  # fmt: skip
def test_faults_of_idx_files_are_refused(
    change: Callable[[Files], object], code: str, told: str, tmp_path: Path
) -> None:
    files = idx_files()
    change(files)
    result = run(tmp_path, zip_of(files), IDX())
    assert result["content"] is None
    assert told in finding(result, code)["message"]
    assert str(tmp_path) not in json.dumps(result)


def test_an_attack_is_named_in_the_report(tmp_path: Path) -> None:
    result = run(tmp_path, zip_of({**good(), "../evil.png": png(3)}), DIVIDED)
    item = finding(result, "unsafe_path")
    assert (item["files"], item["severity"], result["content"]) == (["../evil.png"], "error", None)


def start(tmp_path: Path, content: bytes, wanted: Format, max_bytes: int) -> subprocess.Popen[bytes]:
    (tmp_path / "upload").write_bytes(content)
    (tmp_path / "folder").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.datasets.validation"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=trainer_environment(threads=1, gpu=None),
        start_new_session=True,
    )
    request = {
        "upload": str(tmp_path / "upload"),
        "name": "set.zip",
        "format": wanted.model_dump(mode="json"),
        "folder": str(tmp_path / "folder"),
        "max_bytes": max_bytes,
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    return process


def test_the_process_does_it_without_torch(tmp_path: Path) -> None:
    with start(tmp_path, zip_of(good()), DIVIDED, MAX_BYTES) as process:
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    result = json.loads((tmp_path / "folder" / "result.json").read_text())
    assert result["content"]["num_train"] == 8
    code = "import sys, worker.datasets.validation; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


def test_the_process_ends_with_whoever_started_it(tmp_path: Path) -> None:
    images = {f"train/{label}/{i}.png": png(i, (900, 900)) for label in ("a", "b") for i in range(20)}
    with start(tmp_path, zip_of({**images, "test/a/0.png": png(99, (900, 900))}), DIVIDED, 2**30) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=20) == 1
    assert not (tmp_path / "folder" / "result.json").exists()
    assert os.getpgid(0) != process.pid
