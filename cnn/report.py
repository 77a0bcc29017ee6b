"""How a trained network fails: confusion matrix, precision, recall and F1 of each class, and the worst samples."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cnn.evaluation import Score
from cnn.sheets import gallery

AVERAGING = {
    "macro": "the mean over the classes that occur among the labels or the predictions",
    "weighted": "the mean over the classes, weighted by their support",
    "undefined": "0, where a class was never predicted (precision) or never there (recall)",
}

CELL = 44
SMALL_CELL = 6
MAX_WRITTEN_CLASSES = 20
"""With more classes there is no room for numbers and names."""
FONT_SIZE = 13
MARGIN = 12
MAX_NAME = 16
MAX_CONFUSED = 25


def split_report(score: Score, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """What `report.json` says of a split, where `score.predicted` are the predictions for `labels`, both (N,).

    Rows of the confusion matrix are the true classes, columns the predicted ones.
    """
    # Its import takes seconds, which a run needs only once, at its end.
    from torchmetrics.functional import classification as of

    predicted, labels, count = score.predicted.cpu(), labels.cpu(), len(names)
    precision = _rounded(of.multiclass_precision(predicted, labels, count, average="none"))
    recall = _rounded(of.multiclass_recall(predicted, labels, count, average="none"))
    f1 = _rounded(of.multiclass_f1_score(predicted, labels, count, average="none"))
    support = torch.bincount(labels, minlength=count).tolist()
    rows = zip(names, precision, recall, f1, support, strict=True)
    return {
        "num_images": len(labels),
        "loss": score.loss if math.isfinite(score.loss) else None,
        "accuracy": score.accuracy,
        "top5_accuracy": score.top5_accuracy,
        "f1": {
            average: round(of.multiclass_f1_score(predicted, labels, count, average=average).item(), 6)
            for average in ("macro", "weighted")
        },
        "classes": [dict(zip(("label", "precision", "recall", "f1", "support"), row, strict=True)) for row in rows],
        "confusion_matrix": of.multiclass_confusion_matrix(predicted, labels, count).tolist(),
        "most_confused": _most_confused(score, labels, names),
    }


def _most_confused(score: Score, labels: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """The samples that the network is most sure about and wrong, those of the largest probability first.

    `index` is the place in the split, from 0. What has no finite probability is left out.
    """
    predicted, labels, confidence = score.predicted.cpu(), labels.cpu(), score.confidence.cpu()
    wrong = torch.nonzero((predicted != labels) & confidence.isfinite()).flatten()
    chosen = wrong[torch.argsort(confidence[wrong], descending=True, stable=True)[:MAX_CONFUSED]]
    rows = zip(
        chosen.tolist(), labels[chosen].tolist(), predicted[chosen].tolist(), confidence[chosen].tolist(), strict=True
    )
    return [
        {"index": index, "label": names[label], "predicted": names[said], "probability": round(probability, 6)}
        for index, label, said, probability in rows
    ]


def confused_picture(confused: Sequence[Mapping[str, Any]], images: NDArray[np.uint8]) -> bytes:
    """A PNG of the samples that `most_confused` lists, of the split's `images` (N, C, H, W)."""
    captions = [
        (f"is {one['label']}", f"said {one['predicted']}", f"{one['probability']:.1%}, no. {one['index']}")
        for one in confused
    ]
    return gallery(images[[one["index"] for one in confused]], captions)


def _rounded(values: Tensor) -> list[float]:
    """To the digits that float32 has."""
    return [round(value, 6) for value in values.tolist()]


def confusion_picture(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """A PNG of a confusion matrix: rows are the true classes; the darker a cell, the larger its share of its row."""
    written = len(names) <= MAX_WRITTEN_CLASSES
    cell = CELL if written else SMALL_CELL
    font = ImageFont.load_default(FONT_SIZE)
    shown = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 2]}.." for name in names]
    label_width = math.ceil(max(font.getlength(name) for name in shown)) if written else 0
    offset = 2 * MARGIN + FONT_SIZE + label_width
    side = offset + cell * len(names) + MARGIN
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for row, counts in enumerate(matrix):
        total = max(1, sum(counts))
        for column, count in enumerate(counts):
            corner = (offset + column * cell, offset + row * cell)
            _draw_cell(draw, corner, cell, count, count / total, font if written else None)
    if written:
        _write_names(image, shown, offset, font)
    draw.text((offset, MARGIN / 2), "predicted", "black", font)
    _write_upright(image, (MARGIN // 2, offset), "true", font)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _draw_cell(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], size: int, count: int, share: float, font: Font | None
) -> None:
    """One square, from white to dark blue, with its count when there is a font."""
    x, y = corner
    colour = tuple(round(255 + share * (dark - 255)) for dark in (8, 48, 107))
    draw.rectangle((x, y, x + size - 1, y + size - 1), fill=colour, outline="#dddddd" if font else None)
    if font and count:
        middle = (x + size / 2, y + size / 2)
        draw.text(middle, str(count), "white" if share > 0.5 else "black", font, anchor="mm")


def _write_names(image: Image.Image, names: Sequence[str], offset: int, font: Font) -> None:
    """To the left of the rows, and upright above the columns."""
    draw = ImageDraw.Draw(image)
    for index, name in enumerate(names):
        middle = offset + index * CELL + CELL // 2
        draw.text((offset - MARGIN / 2, middle), name, "black", font, anchor="rm")
        width = math.ceil(font.getlength(name))
        _write_upright(image, (middle - FONT_SIZE // 2, offset - MARGIN // 2 - width), name, font)


def _write_upright(image: Image.Image, corner: tuple[int, int], text: str, font: Font) -> None:
    """Text that reads from bottom to top, with its upper left corner at `corner`."""
    line = Image.new("RGB", (math.ceil(font.getlength(text)), FONT_SIZE + 4), "white")
    ImageDraw.Draw(line).text((0, 0), text, "black", font)
    image.paste(line.rotate(90, expand=True), corner)
