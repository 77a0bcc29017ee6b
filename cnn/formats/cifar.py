"""CIFAR-10 and CIFAR-100 in their binary form: records of labels and 3 × 32 × 32 pixels (Krizhevsky, 2009)."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn.data import Data, Images, Labels, build_data
from cnn.errors import DataCorrupt, DatasetMissing

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class CifarFiles:
    """Where the records of one of the two datasets are.

    Args:
        archive: name of the published file, which holds `folder`.
        sha256: of the published file, for those who want to check their download.
        train: names of the files with the training records.
        test: name of the file with the test records.
        names: name of the file with the names of the classes, one a line.
        num_train: records in each file of `train`.
        num_test: records in `test`.
        label_bytes: bytes in front of the pixels; the last of them is the class.
    """

    archive: str
    sha256: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    num_train: int
    num_test: int
    label_bytes: int

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes that each file of records must have."""
        record = self.label_bytes + PIXELS
        return dict.fromkeys(self.train, self.num_train * record) | {self.test: self.num_test * record}


CIFAR10 = CifarFiles(
    archive="cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test="test_batch.bin",
    names="batches.meta.txt",
    num_train=10_000,
    num_test=10_000,
    label_bytes=1,
)
CIFAR100 = CifarFiles(
    archive="cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    names="fine_label_names.txt",
    num_train=50_000,
    num_test=10_000,
    label_bytes=2,  # the coarse class, then the fine one
)
MAX_NAMES_BYTES = 65536


def read_cifar(place: Path, files: CifarFiles, classes: tuple[str, ...]) -> Data:
    """From the unpacked folder in `place`, or from the published archive there.

    Raises DatasetMissing or DataCorrupt.
    """
    folder, archive = place / files.folder, place / files.archive
    if folder.is_dir():
        where, content = folder, _from_folder(folder, files)
    elif archive.is_file():
        where, content = archive, _from_archive(archive, files)
    else:
        raise DatasetMissing(
            f"There is neither {folder} nor {archive}. Download the binary version (not the Python one) with "
            f"`curl --create-dirs -o {archive} https://www.cs.toronto.edu/~kriz/{files.archive}` "
            f"(SHA-256 {files.sha256}); it need not be unpacked"
        )
    _check_names(where, files.names, content[files.names], classes)
    parts = [_records(where, name, content[name], files.label_bytes, len(classes)) for name in files.sizes]
    images, labels = [part[0] for part in parts], [part[1] for part in parts]
    return build_data(str(where), np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1])


def _from_folder(folder: Path, files: CifarFiles) -> dict[str, bytes]:
    content = {}
    for name in (*files.sizes, files.names):
        path = folder / name
        if not path.is_file():
            raise DatasetMissing(f"{path} does not exist; {files.archive} has it as {files.folder}/{name}")
        _check_size(folder, name, path.stat().st_size, files)
        content[name] = path.read_bytes()
    return content


def _from_archive(archive: Path, files: CifarFiles) -> dict[str, bytes]:
    """The wanted members, by their exact names, read into memory: nothing is extracted."""
    wanted = {f"{files.folder}/{name}": name for name in (*files.sizes, files.names)}
    content: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                if member.name not in wanted or not member.isfile():
                    continue
                name = wanted[member.name]
                _check_size(archive, name, member.size, files)
                file = members.extractfile(member)
                content[name] = file.read() if file else b""
                if len(content) == len(wanted):
                    return content
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataCorrupt(f"{archive}: {error}", f"its SHA-256 should be {files.sha256}: download it again") from error
    missing = ", ".join(path for path, name in wanted.items() if name not in content)
    raise DataCorrupt(f"{archive}: it has no file {missing}", "take the binary version, not the Python or Matlab one")


def _check_size(where: Path, name: str, size: int, files: CifarFiles) -> None:
    sizes: Mapping[str, int] = files.sizes
    if name in sizes and size != sizes[name]:
        raise DataCorrupt(f"{where}: {name} must have {sizes[name]} bytes, it has {size}")
    if name == files.names and size > MAX_NAMES_BYTES:
        raise DataCorrupt(f"{where}: {name} must have at most {MAX_NAMES_BYTES} bytes, it has {size}")


def _check_names(where: Path, name: str, content: bytes, classes: tuple[str, ...]) -> None:
    found = tuple(content.decode("utf-8", errors="replace").split())
    if found != classes:
        raise DataCorrupt(f"{where}: {name} must list {', '.join(classes)}; it lists {', '.join(found)[:1000]}")


def _records(where: Path, name: str, content: bytes, label_bytes: int, num_classes: int) -> tuple[Images, Labels]:
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, label_bytes + PIXELS)
    labels = records[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= num_classes:
        record = int(np.argmax(labels >= num_classes))
        raise DataCorrupt(
            f"{where}: {name}: expected class numbers below {num_classes}, got {labels[record]} in record {record}"
        )
    return records[:, label_bytes:].reshape(-1, *SHAPE), labels
