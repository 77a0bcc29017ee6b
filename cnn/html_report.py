"""`report.html`: one page about a run that needs no other file and no network. Every text in it is escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cnn.events import Metrics, Result
from cnn.spec import TrainingSpec

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 8, 24
COLOURS = ("#1f77b4", "#d62728")
CHARTS = (("loss", ("train_loss", "val_loss")), ("accuracy", ("train_accuracy", "val_accuracy")), ("lr", ("lr",)))
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse}th,td{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}pre{background:#f5f5f5;padding:1rem;overflow:auto}
figure{display:inline-block;margin:.5rem}img{max-width:100%}svg text{font-size:11px;fill:#444}
"""
LOADING = """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
[logits] = session.run(None, {"images": images})  # uint8 (N, channels, height, width), 0 to 255

from safetensors.torch import load_file
weights = load_file("model.safetensors")  # `normalization.*` are the statistics of the input normalization

# or without Python code of your own: tar xf bundle.tar; python model/predict.py picture.png
"""
CAPTIONS = {
    "confusion_matrix.png": "Confusion matrix of the test split",
    "most_confused.png": "Test images that it is surest about, and wrong",
    "augmentation.png": "Training images and what augmentation makes of them",
    "filters.png": "Filters of the first layer",
}


def html_report(
    spec: TrainingSpec,
    metrics: Sequence[Metrics],
    result: Result,
    report: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    environment: Mapping[str, object],
) -> bytes:
    """The page. `report` is what `report.json` holds, `pictures` are PNGs by their names."""
    title = f"{spec.model.type} on {spec.dataset.info.name}"
    test = report["splits"]["test"]
    parts = [
        f"<h1>{escape(title)}</h1>",
        _table(
            ("test accuracy", "test loss", "weights", "epoch", "step", "parameters"),
            [
                (
                    f"{result.test_accuracy:.2%}",
                    f"{result.test_loss:.4f}",
                    result.weights,
                    result.epoch,
                    result.step,
                    f"{spec.plan().num_parameters:,}",
                )
            ],
        ),
        "<h2>Curves</h2>",
        *(_chart(name, keys, metrics) for name, keys in CHARTS),
        "<h2>Classes of the test split</h2>",
        _table(
            ("class", "precision", "recall", "F1", "images"),
            [(row["label"], *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), row["support"])
             for row in test["classes"]],
        ),
        *(_picture(CAPTIONS[name], content) for name, content in pictures.items()),
        "<h2>Spec</h2>",
        f"<pre>{escape(spec.model_dump_json(indent=2))}</pre>",
        "<h2>Environment</h2>",
        f"<pre>{escape(json.dumps(environment, indent=2, ensure_ascii=False))}</pre>",
        "<h2>How to load it</h2>",
        f"<pre>{escape(LOADING)}</pre>",
    ]  # fmt: skip
    body = "\n".join(parts)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    ).encode()


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ("".join(f"<td>{escape(str(value))}</td>" for value in row) for row in rows)
    return f"<table><tr>{cells}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _picture(caption: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return f'<h2>{escape(caption)}</h2><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'


def _chart(name: str, keys: Sequence[str], metrics: Sequence[Metrics]) -> str:
    """The series over the epochs as lines; values that are not finite leave a gap."""
    series = {
        key: [(row.epoch, row.values[key]) for row in metrics if math.isfinite(row.values.get(key, math.nan))]
        for key in keys
    }
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    low, high = min(value for _, value in points), max(value for _, value in points)
    last = max(epoch for epoch, _ in points)

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - 1) / max(1, last - 1)
        up = (value - low) / (high - low) if high > low else 0.5
        return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (1 - up) * (HEIGHT - TOP - BOTTOM)

    lines = zip(COLOURS, series.values(), strict=False)
    drawn = [_line(colour, [place(*point) for point in line]) for colour, line in lines if line]
    legend = "  ".join(
        f'<tspan fill="{colour}">{escape(key)}</tspan>' for colour, key in zip(COLOURS, series, strict=False)
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(name)} over the epochs">'
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="none" '
        f'stroke="#ccc"/><text x="{LEFT - 4}" y="{TOP + 10}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{LEFT - 4}" y="{HEIGHT - BOTTOM}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">epoch 1</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{last}</text>'
        f'<text x="{WIDTH // 2}" y="{HEIGHT - 6}" text-anchor="middle">{legend}</text>'
        f"{''.join(drawn)}</svg></figure>"
    )


def _line(colour: str, spots: Sequence[tuple[float, float]]) -> str:
    """Through all spots, with a dot at the last."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    x, y = spots[-1]
    return (
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>'
    )
