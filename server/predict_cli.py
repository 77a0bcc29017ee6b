"""`epochd predict`: what a job's network says of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from server.client import DEFAULT_URL
from server.console import BAD_INPUT, AsJson, JobId, Url, connect, fail, out, print_json
from server.prediction_schemas import (
    ARRAY_SUFFIXES,
    DEFAULT_TOP_K,
    MAX_BYTES,
    MAX_IMAGES,
    MAX_TOP_K,
    Layout,
    PredictedImage,
)

FORM_BYTES = 1024
"""About what a form needs for each image beside its bytes."""
NOT_SEEN = {
    "transparency": "its transparency was dropped",
    "several_frames": "only its first frame was looked at",
    "turned": "it was not turned as EXIF asks",
}


def predict(
    job_id: JobId,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Files: PNG, JPEG, WEBP, BMP, NPY or NPZ.")],
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, max=MAX_TOP_K, help="How many classes to name for each image.")
    ] = DEFAULT_TOP_K,
    layout: Annotated[
        Layout | None,
        typer.Option("--layout", help="Axes of arrays, where the size of the network's images leaves doubt."),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Ask a job's network what images show."""
    table = Table(Column("image", overflow="fold"), "class", Column("probability", justify="right"), "else", box=None)
    with connect(url) as client:
        for batch in _batches(images):
            for image in client.predict(job_id, batch, top_k=top_k, layout=layout).data:
                if as_json:
                    print_json(image)
                else:
                    _add(table, image)
    if not as_json:
        out.print(table)


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in groups that fit into a request each; an array, which may have many images, is alone in its own."""
    batch: list[Path] = []
    room = MAX_BYTES
    for path in paths:
        try:
            size = path.stat().st_size + FORM_BYTES
        except OSError as error:
            fail(BAD_INPUT, f"{path}: {error.strerror}")
        has_array = any(one.suffix.lower() in ARRAY_SUFFIXES for one in (path, *batch[:1]))
        if batch and (has_array or size > room or len(batch) == MAX_IMAGES):
            yield batch
            batch, room = [], MAX_BYTES
        batch.append(path)
        room -= size
    yield batch


def _add(table: Table, image: PredictedImage) -> None:
    first, *others = image.predictions
    rest = ", ".join(f"{one.label} {one.probability:.1%}" for one in others)
    place = "" if image.position is None else f"[{image.position}]"
    table.add_row(escape(f"{image.name or ''}{place}"), escape(first.label), f"{first.probability:.1%}", escape(rest))
    for warning in image.warnings:
        table.add_row("", "", "", f"({NOT_SEEN.get(warning, warning)})")
