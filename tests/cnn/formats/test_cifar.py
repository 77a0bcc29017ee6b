from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cnn import datasets
from cnn.errors import DataCorrupt, DatasetMissing
from cnn.formats.cifar import CIFAR10, CIFAR100, CifarFiles, read_cifar
from tests.cnn.formats.written import cifar_archive, cifar_content, cifar_folder, smaller

CLASSES_10 = datasets.CIFAR10.info.labels
BOTH = pytest.mark.parametrize(
    ("files", "classes"),
    [(smaller(CIFAR10), CLASSES_10), (smaller(CIFAR100), datasets.CIFAR100.info.labels)],
    ids=["cifar10", "cifar100"],
)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@BOTH
def test_records_become_images(tmp_path: Path, files: CifarFiles, classes: tuple[str, ...], *, packed: bool) -> None:
    (cifar_archive if packed else cifar_folder)(tmp_path, files, cifar_content(files, classes))
    data = read_cifar(tmp_path, files, classes)
    count = 3 * len(files.train)
    assert data.train_images.shape == (count, 3, 32, 32)
    assert data.train_labels.tolist() == [number % len(classes) for number in range(count)]
    assert data.test_labels.tolist() == [number % len(classes) for number in (count, count + 1)]
    red, green, blue = data.train_images[2]
    assert (set(red.flat), set(green.flat)) == ({2}, {100})
    assert blue[5].tolist() == list(range(200, 232))  # rows lie one after the other


def test_an_archive_and_a_folder_have_one_digest(tmp_path: Path) -> None:
    files, classes = smaller(CIFAR10), CLASSES_10
    content = cifar_content(files, classes)
    cifar_folder(tmp_path / "a", files, content)
    cifar_archive(tmp_path / "b", files, content)
    assert read_cifar(tmp_path / "a", files, classes).digest == read_cifar(tmp_path / "b", files, classes).digest


def test_the_published_sizes() -> None:
    """10,000 records of 1 + 3072 bytes; 50,000 or 10,000 of 2 + 3072."""
    assert CIFAR10.sizes["data_batch_5.bin"] == CIFAR10.sizes["test_batch.bin"] == 30_730_000
    assert CIFAR100.sizes == {"train.bin": 153_700_000, "test.bin": 30_740_000}


def test_nothing_there_says_what_to_get_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing) as caught:
        read_cifar(tmp_path, CIFAR10, CLASSES_10)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    assert f"-o {archive} https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" in caught.value.message


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_batch_2.bin": b"\0" * 3073}, "data_batch_2.bin must have 9219 bytes, it has 3073"),
        ({"test_batch.bin": b"\x0a" * 6146}, "test_batch.bin: expected class numbers below 10, got 10 in record 0"),
        ({"batches.meta.txt": b"cat\ndog\n"}, "batches.meta.txt must list airplane, .*; it lists cat, dog"),
        ({"batches.meta.txt": b"a" * 65537}, "batches.meta.txt must have at most 65536 bytes, it has 65537"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, change: dict[str, bytes], message: str, *, packed: bool) -> None:
    files, classes = smaller(CIFAR10), CLASSES_10
    (cifar_archive if packed else cifar_folder)(tmp_path, files, cifar_content(files, classes) | change)
    with pytest.raises(DataCorrupt, match=message):
        read_cifar(tmp_path, files, classes)


def test_a_folder_with_a_file_missing(tmp_path: Path) -> None:
    files, classes = smaller(CIFAR10), CLASSES_10
    cifar_folder(tmp_path, files, cifar_content(files, classes))
    (tmp_path / files.folder / "data_batch_4.bin").unlink()
    with pytest.raises(DatasetMissing, match=r"data_batch_4\.bin does not exist"):
        read_cifar(tmp_path, files, classes)


def test_an_archive_with_other_names_is_refused_and_nothing_is_unpacked(tmp_path: Path) -> None:
    files, classes = smaller(CIFAR10), CLASSES_10
    cifar_archive(tmp_path, files, cifar_content(files, classes), inside="../cifar-10-batches-bin")
    with pytest.raises(DataCorrupt, match=r"it has no file cifar-10-batches-bin/data_batch_1\.bin, "):
        read_cifar(tmp_path, files, classes)
    assert [path.name for path in tmp_path.iterdir()] == [files.archive]


@pytest.mark.parametrize("content", [b"no archive", gzip.compress(b"no archive"), None])
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    files, classes = smaller(CIFAR10), CLASSES_10
    archive = cifar_archive(tmp_path, files, cifar_content(files, classes))
    archive.write_bytes(archive.read_bytes()[:300] if content is None else content)
    with pytest.raises(DataCorrupt, match=r"cifar-10-binary\.tar\.gz: ") as caught:
        read_cifar(tmp_path, files, classes)
    assert "c4a38c50" in (caught.value.hint or "")
