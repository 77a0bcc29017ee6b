"""What the pixels themselves tell: images that occur several times, in both splits, under two labels, or are blank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from cnn.data import Data, Images
from worker.datasets.decoding import Decoded
from worker.datasets.findings import Report

Place = tuple[str, int]
"""A split, and the number of an image in it."""


def inspect(decoded: Decoded, classes: Sequence[str], report: Report) -> None:
    """Count images, and look for what is suspicious; only a class without training images is an error."""
    data = decoded.data
    labels = {"train": data.train_labels, "test": data.test_labels}
    for split in labels:
        counts = np.bincount(labels[split], minlength=len(classes)).tolist()
        report.splits[split] = {"num_images": len(labels[split]), "per_class": dict(zip(classes, counts, strict=True))}
    untrained = [label for label, count in report.splits["train"]["per_class"].items() if not count]
    if untrained:
        report.error("class_without_images", "these classes have no training images", untrained)
    names = {"train": decoded.train_names, "test": decoded.test_names}
    _compare(data, lambda place: names[place[0]][place[1]], lambda place: classes[labels[place[0]][place[1]]], report)
    blank = [names[split][index] for split, index in _blank(data)]
    if blank:
        report.warning("blank_images", "all pixels of these images have one value", blank)


def _compare(data: Data, name: Callable[[Place], str], label: Callable[[Place], str], report: Report) -> None:
    """Report images that are equal to others."""
    duplicates, leaked, conflicts = [], [], []
    for group in _groups(data):
        if len(group) == 1:
            continue
        agree = len(set(map(label, group))) == 1
        told = " = ".join(name(place) if agree else f"{name(place)} ({label(place)})" for place in group)
        if not agree:
            conflicts.append(told)
        if len({split for split, _ in group}) == 2:
            leaked.append(told)
        elif agree:
            duplicates.append(told)
    if conflicts:
        report.warning("label_conflict", "equal images have different labels", conflicts)
    if leaked:
        report.warning("leakage", "images of test are in train, too: test accuracy says too much", leaked)
    if duplicates:
        report.warning("duplicate_images", "images occur more than once in their split", duplicates)


def _groups(data: Data) -> list[list[Place]]:
    """The places of equal images, by digest, in order of the first ones."""
    groups: dict[bytes, list[Place]] = {}
    for split, images in (("train", data.train_images), ("test", data.test_images)):
        for index in range(len(images)):
            digest = hashlib.blake2b(np.ascontiguousarray(images[index]).data, digest_size=16).digest()
            groups.setdefault(digest, []).append((split, index))
    return list(groups.values())


def _blank(data: Data) -> list[Place]:
    found: list[Place] = []
    for split, images in (("train", data.train_images), ("test", data.test_images)):
        found += [(split, index) for index in range(len(images)) if _is_blank(images, index)]
    return found


def _is_blank(images: Images, index: int) -> bool:
    image = images[index].reshape(len(images[index]), -1)
    return bool((image == image[:, :1]).all())
