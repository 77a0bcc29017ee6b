from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnn.evaluation import Score
from cnn.report import CELL, confused_picture, confusion_picture, split_report
from cnn.sheets import CAPTION_WIDTH, GAP, MIN_CELL

NAMES = ["ant", "bee", "cat", "dog"]
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = torch.tensor([0, 0, 0, 1, 1, 0, 1, 1])
CONFIDENCE = torch.tensor([0.99, 0.9, 0.9, 0.6, 0.9, 0.75, 0.75, torch.nan], dtype=torch.float64)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return split_report(Score(float("inf"), 0.5, None, PREDICTED, CONFIDENCE), LABELS, NAMES)


def test_numbers_by_hand(report: dict[str, Any]) -> None:
    assert report["confusion_matrix"] == [[3, 1, 0, 0], [1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    rows = [(row["label"], row["precision"], row["recall"], row["f1"], row["support"]) for row in report["classes"]]
    # F1 is 2PR / (P + R): 3/4 and 3/4; 1/4 and 1/2; never predicted; never there.
    assert rows == [
        ("ant", 0.75, 0.75, 0.75, 4),
        ("bee", 0.25, 0.5, pytest.approx(1 / 3, abs=1e-6), 2),
        ("cat", 0.0, 0.0, 0.0, 2),
        ("dog", 0.0, 0.0, 0.0, 0),
    ]
    assert report["num_images"] == 8


def test_averages_are_those_that_are_stated(report: dict[str, Any]) -> None:
    # No dog among labels or predictions: three classes.
    assert report["f1"]["macro"] == pytest.approx((0.75 + 1 / 3 + 0) / 3, abs=1e-6)
    assert report["f1"]["weighted"] == pytest.approx((4 * 0.75 + 2 / 3 + 0) / 8, abs=1e-6)


def test_a_loss_that_is_not_finite_is_null(report: dict[str, Any]) -> None:
    assert report["loss"] is None
    assert split_report(Score(0.25, 0.5, None, PREDICTED, CONFIDENCE), LABELS, NAMES)["loss"] == 0.25


def test_the_wrong_ones_come_surest_first_and_then_by_place(report: dict[str, Any]) -> None:
    # Wrong are 3, 5, 6 and 7; the last has no probability.
    assert report["most_confused"] == [
        {"index": 5, "label": "bee", "predicted": "ant", "probability": 0.75},
        {"index": 6, "label": "cat", "predicted": "bee", "probability": 0.75},
        {"index": 3, "label": "ant", "predicted": "bee", "probability": 0.6},
    ]


def test_their_picture_shows_the_images_at_those_places(report: dict[str, Any]) -> None:
    images = np.arange(8, dtype=np.uint8)[:, None, None, None] * 30 + np.zeros((1, 1, 8, 8), dtype=np.uint8)
    content = confused_picture(report["most_confused"], images)
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    left = [GAP + place * (CAPTION_WIDTH + GAP) for place in range(3)]
    assert [int(pixels[GAP + 1, x]) for x in left] == [150, 180, 90]
    below = pixels[GAP + MIN_CELL :]
    assert all((below[:, x : x + CAPTION_WIDTH] < 100).any() for x in left)


def test_the_picture_is_dark_where_the_counts_are() -> None:
    matrix = [[90, 10], [0, 7]]
    content = confusion_picture(matrix, ["first", "a name that is much too long"])
    assert content == confusion_picture(matrix, ["first", "a name that is much too long"])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int)
    size = len(pixels)
    corner = size - 12 - 2 * CELL
    # Beside the digits and the border of each cell.
    cells = [[pixels[corner + r * CELL + 4, corner + c * CELL + 4] for c in (0, 1)] for r in (0, 1)]
    assert cells[1][1] < cells[0][0] < cells[0][1] < cells[1][0] == 255
    middle = pixels[corner : corner + CELL, corner : corner + CELL]
    assert (middle > 200).sum() > 20  # its number


def test_many_classes_give_a_picture_without_words() -> None:
    matrix = np.eye(100, dtype=int).tolist()
    image = Image.open(io.BytesIO(confusion_picture(matrix, [str(number) for number in range(100)])))
    assert max(image.size) < 700
