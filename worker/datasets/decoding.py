"""Decodes every image of a dataset, header first, into memory-mapped arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn.data import TEST_SEED, Data, Images, build_data
from cnn.errors import DataCorrupt
from cnn.formats.image_folder import Header, decode, read_header
from cnn.splits import stratified_split
from worker.datasets.findings import MAX_SIZES, Refused, Report
from worker.datasets.formats import Images as Wanted
from worker.datasets.layout import ALL, Layout, Sample

Size = tuple[int, int]


@dataclass(frozen=True)
class Decoded:
    """The arrays, and the name of each image in the upload."""

    data: Data
    train_names: Sequence[str]
    test_names: Sequence[str]


def decode_images(layout: Layout, wanted: Wanted, folder: Path, max_bytes: int, report: Report) -> Decoded:
    """Write `train_images.npy` and `test_images.npy` into the folder.

    Raises:
        Refused: the report says why: every file that cannot be used, not only the first.
    """
    headers = _headers(layout.samples, report)
    size = wanted.image_size or _common_size(headers, report)
    samples = [sample for sample in layout.samples if sample in headers]
    _check_headers(headers, report)
    num_bytes = len(layout.samples) * wanted.channels * size[0] * size[1]
    if num_bytes > max_bytes:
        report.error(
            "too_large",
            f"{len(layout.samples):,} images of {_written(size)} pixels in {wanted.channels} channels are "
            f"{num_bytes:,} bytes, at most {max_bytes:,} may be registered (EPOCHD_MAX_DATASET_BYTES): set image_size",
        )
        raise Refused
    train, test = _divided(samples, wanted.test_fraction, report)
    arrays = {}
    for split, members in (("train", train), ("test", test)):
        shape = (len(members), wanted.channels, *size)
        images = np.lib.format.open_memmap(folder / f"{split}_images.npy", "w+", np.uint8, shape)
        _decode_into(images, members, wanted, report)
        arrays[split] = images, np.array([sample.label for sample in members], dtype=np.int64)
    report.stop_if_refused()
    data = build_data("dataset", *arrays["train"], *arrays["test"])
    return Decoded(data, [s.member.name for s in train], [s.member.name for s in test])


def _headers(samples: Sequence[Sample], report: Report) -> dict[Sample, Header]:
    headers, unreadable = {}, []
    for sample in samples:
        try:
            headers[sample] = read_header(sample.member.path)
        except DataCorrupt as error:
            unreadable.append(_told(sample, error))
    if unreadable:
        report.error("unreadable_image", "these files are no images that can be used", unreadable)
    if not headers:
        raise Refused
    sizes = Counter(header.size for header in headers.values())
    report.sizes = {_written(size): count for size, count in sizes.most_common(MAX_SIZES)}
    return headers


def _common_size(headers: dict[Sample, Header], report: Report) -> Size:
    """The size that most images have; it is an error when not all do."""
    sizes = Counter(header.size for header in headers.values())
    size = sizes.most_common(1)[0][0]
    others = [f"{sample.member.name} ({_written(h.size)})" for sample, h in headers.items() if h.size != size]
    if others:
        message = f"expected images of one size, most are {_written(size)}; with image_size all are resized; not so"
        report.error("sizes_differ", message, others)
        raise Refused
    return size


def _check_headers(headers: dict[Sample, Header], report: Report) -> None:
    facts: dict[str, tuple[str, Callable[[Header], bool]]] = {
        "several_frames": ("only the first frame of these is used", lambda header: header.has_frames),
        "transparency": ("the transparency of these is dropped", lambda header: header.has_alpha),
        "turned": ("EXIF asks to show these turned, which is not done", lambda header: header.is_turned),
    }
    for code, (message, is_so) in facts.items():
        found = [sample.member.name for sample, header in headers.items() if is_so(header)]
        if found:
            report.warning(code, message, found)


def _divided(
    samples: Sequence[Sample], test_fraction: float | None, report: Report
) -> tuple[list[Sample], list[Sample]]:
    if test_fraction is None:
        return [s for s in samples if s.split == "train"], [s for s in samples if s.split == "test"]
    assert all(sample.split == ALL for sample in samples)
    num_test = round(test_fraction * len(samples))
    if num_test in (0, len(samples)):
        report.error("bad_test_fraction", f"a test_fraction of {test_fraction} of {len(samples)} images is {num_test}")
        raise Refused
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    kept, held_out = stratified_split(labels, test_fraction, TEST_SEED, "test")
    return [samples[index] for index in kept], [samples[index] for index in held_out]


def _decode_into(images: Images, samples: Sequence[Sample], wanted: Wanted, report: Report) -> None:
    unreadable = []
    for index, sample in enumerate(samples):
        try:
            images[index] = decode(sample.member.path, wanted.image_size, wanted.channels)
        except DataCorrupt as error:
            unreadable.append(_told(sample, error))
    if unreadable:
        report.error("unreadable_image", "these images are damaged", unreadable)


def _told(sample: Sample, error: DataCorrupt) -> str:
    """The file by its name in the upload, and what is wrong with it."""
    reason = error.message.replace(f"{sample.member.path}: ", "").replace(repr(str(sample.member.path)), "it")
    return f"{sample.member.name} ({reason})"


def _written(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
