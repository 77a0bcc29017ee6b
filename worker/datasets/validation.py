"""`python -m worker.datasets.validation`: reads one upload that nobody trusts, and writes the dataset that it makes.

It gets its request as a line of JSON on its standard input and ends when that closes; it has limits for memory, CPU
time and the size of files, and writes into its own folder only: `arrays/`, and `result.json` last.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from cnn.data import PARTS, Data, write_decoded
from cnn.errors import DataCorrupt, DatasetMissing
from cnn.formats.idx import NAMES, find_idx, idx_shape
from cnn.formats.npz import npz_info, read_npz
from cnn.sheets import sheet
from worker.datasets.archive import extract
from worker.datasets.contents import inspect
from worker.datasets.decoding import Decoded, decode_images
from worker.datasets.extraction import ArchiveRefused, Extraction, Limits
from worker.datasets.findings import Refused, Report
from worker.datasets.formats import CSV, IDX, NPZ, Format, ImageFolder
from worker.datasets.layout import folder_layout, relevant, table_layout
from worker.limits import set_limits

MEMORY_BYTES = 2 * 2**30
"""What validation may use beside the pixels of the dataset themselves, held twice."""
CPU_SECONDS = 1800
FILE_BYTES = 2**36
NICENESS = 10
SHEET_ROWS, SHEET_COLUMNS = 10, 8
ARRAYS, RESULT, SHEET = "arrays", "result.json", "samples.png"


def main() -> None:
    with open(0, "rb", buffering=0, closefd=False) as requests:
        request: dict[str, Any] = json.loads(requests.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit(request["max_bytes"])
    wanted: Format = TypeAdapter(Format).validate_python(request["format"])
    folder = Path(request["folder"])
    result = validate(Path(request["upload"]), request["name"], wanted, folder, request["max_bytes"])
    temporary = folder / f"{RESULT}.new"
    temporary.write_text(json.dumps(result))
    temporary.rename(folder / RESULT)


def validate(upload: Path, name: str, wanted: Format, folder: Path, max_bytes: int) -> dict[str, Any]:
    """`report`, and when nothing is an error `content`, with the arrays in the folder.

    Args:
        name: how messages call the upload.
        folder: empty, and ours.
        max_bytes: that the pixels may take.
    """
    report = Report()
    arrays = folder / ARRAYS
    arrays.mkdir()
    content = None
    try:
        decoded, classes = _decoded(upload, name, wanted, folder, max_bytes, report)
        inspect(decoded, classes, report)
        report.stop_if_refused()
        content = _store(decoded.data, classes, arrays)
    except Refused:
        pass
    except ArchiveRefused as error:
        report.error(error.code, str(error), [] if error.member is None else [error.member])
    except (DataCorrupt, DatasetMissing) as error:
        hint = f" ({error.hint})" if error.hint else ""
        report.error(error.code, f"{_readable(error.message, upload, name, folder)}{hint}", [name])
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        report.error("disk_full", "the server's disk is full: register it again when there is room")
    except MemoryError:
        report.error(
            "too_large", "reading it takes more memory than a dataset may have (EPOCHD_MAX_DATASET_BYTES)", [name]
        )
    return {"report": report.to_json(), "content": content}


def _decoded(
    upload: Path, name: str, wanted: Format, folder: Path, max_bytes: int, report: Report
) -> tuple[Decoded, tuple[str, ...]]:
    members = folder / "members"
    members.mkdir()
    extraction = extract(upload, members, Limits(), may_compress=isinstance(wanted, IDX))
    match wanted:
        case ImageFolder():
            layout = folder_layout(extraction, wanted, report)
            return decode_images(layout, wanted, folder / ARRAYS, max_bytes, report), layout.classes
        case CSV():
            layout = table_layout(extraction, wanted, report)
            return decode_images(layout, wanted, folder / ARRAYS, max_bytes, report), layout.classes
        case NPZ():
            shutil.rmtree(members)  # reading it has shown that it is sound; the arrays are read from the file itself
            info = npz_info(upload, wanted.layout, wanted.test_fraction)
            _check_size((info.num_train + info.num_test) * int(np.prod(info.shape)), max_bytes, report, [name])
            return _named(read_npz(upload, wanted.layout, wanted.test_fraction)), info.labels
        case IDX():
            found = find_idx(_idx_folder(extraction, folder / "idx", report))
            for path in (found.train_images, found.train_labels, found.test_images, found.test_labels):
                _check_size(int(np.prod(idx_shape(path), dtype=object)), max_bytes, report, [path.name])
            return _named(found.read()), found.info("idx").labels


def _idx_folder(extraction: Extraction, folder: Path, report: Report) -> Path:
    """The four files under their own names, wherever they were in the archive."""
    folder.mkdir()
    strange = []
    for member in relevant(extraction, report):
        base = member.parts[-1]
        target = folder / base
        if base.removesuffix(".gz") not in NAMES or target.exists():
            strange.append(member.name)
        else:
            os.link(member.path, target)
    if strange:
        report.error("unexpected_file", f"expected {', '.join(NAMES)} only, each once, gzipped or not", strange)
        raise Refused
    return folder


def _check_size(num_bytes: int, max_bytes: int, report: Report, files: list[str]) -> None:
    if num_bytes > max_bytes:
        message = f"{num_bytes:,} bytes of pixels are announced, at most {max_bytes:,} may be registered"
        report.error("too_large", f"{message} (EPOCHD_MAX_DATASET_BYTES)", files)
        raise Refused


def _named(data: Data) -> Decoded:
    """Images of arrays are called by their places in them."""
    return Decoded(
        data,
        [f"train_images[{index}]" for index in range(len(data.train_images))],
        [f"test_images[{index}]" for index in range(len(data.test_images))],
    )


def _store(data: Data, classes: tuple[str, ...], arrays: Path) -> dict[str, Any]:
    """Write what is not in the folder yet; returns what a spec holds of the dataset."""
    if (arrays / f"{PARTS[0]}.npy").exists():
        np.save(arrays / "train_labels.npy", data.train_labels)
        np.save(arrays / "test_labels.npy", data.test_labels)
        (arrays / "digest.json").write_text(json.dumps({"digest": data.digest}))
    else:
        write_decoded(arrays, data)
    (arrays / SHEET).write_bytes(_sheet(data, classes))
    return {
        "digest": data.digest,
        "shape": data.train_images.shape[1:],
        "labels": classes,
        "num_train": len(data.train_images),
        "num_test": len(data.test_images),
    }


def _sheet(data: Data, classes: tuple[str, ...]) -> bytes:
    """A PNG of training images: a row for each of the first classes, with as many images as fit."""
    rows = min(len(classes), SHEET_ROWS)
    places = [np.flatnonzero(data.train_labels == label)[:SHEET_COLUMNS] for label in range(rows)]
    columns = []
    for column in range(SHEET_COLUMNS):
        picked = [
            data.train_images[of_class[column]] if column < len(of_class) else np.full_like(data.train_images[0], 255)
            for of_class in places
        ]
        columns.append(np.stack(picked))
    return sheet(columns, classes[:rows])


def _readable(message: str, upload: Path, name: str, folder: Path) -> str:
    """The message without places on the server's disk."""
    return message.replace(str(upload), name).replace(f"{folder / 'idx'}/", "").replace(str(folder / "idx"), name)


def _limit(max_bytes: int) -> None:
    os.nice(NICENESS)
    set_limits(
        {
            resource.RLIMIT_AS: MEMORY_BYTES + 2 * max_bytes,
            resource.RLIMIT_CPU: CPU_SECONDS,
            resource.RLIMIT_FSIZE: FILE_BYTES,
            resource.RLIMIT_NOFILE: 256,
            resource.RLIMIT_CORE: 0,
        }
    )


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
