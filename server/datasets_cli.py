"""`epochd dataset`: send one's own images, and look at what became of them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from server.client import DEFAULT_URL
from server.console import BAD_INPUT, FAILED, AsJson, Url, connect, fail, out, print_json
from server.dataset_schemas import Dataset

app = typer.Typer(no_args_is_help=True, help="Datasets of one's own.")

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="Id of the dataset: ds_…")]
FORMATS = ("image_folder", "csv", "npz", "idx")
OPTIONS = {"image_size": "--image-size HEIGHT WIDTH", "test_fraction": "--test-fraction 0.2"}
"""How the command gives what validation asks for."""


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(help="A folder, zip, tar or tar.gz of images, or an NPZ file.")],
    format: Annotated[str, typer.Option(help=f"What it holds: {', '.join(FORMATS)}.")] = "image_folder",
    name: Annotated[str | None, typer.Option(help="What to call it; the file's name without this.")] = None,
    image_size: Annotated[
        tuple[int, int] | None, typer.Option(metavar="HEIGHT WIDTH", help="Resize all images to this.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grey, 3 for RGB.")] = None,
    test_fraction: Annotated[float | None, typer.Option(help="Share for testing, where it is not divided.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send images, register them and wait until they are validated; after an interruption, run it again: it goes on."""
    options = {"image_size": image_size, "channels": channels, "test_fraction": test_fraction}
    wanted: dict[str, Any] = {"type": format, **{key: value for key, value in options.items() if value is not None}}
    with connect(url) as client:
        try:
            with _packed(path) as file:
                sent = client.datasets.upload(file)
        except OSError as error:
            fail(BAD_INPUT, f"{path}: {error.strerror or error}")
        dataset = client.datasets.register(sent.id, name=name or path.resolve().name, format=wanted)
        dataset = client.datasets.wait(dataset.id)
    _print(dataset, as_json)
    if dataset.status != "ready":
        raise typer.Exit(FAILED)


@app.command("ls")
def list_datasets(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List datasets, newest first."""
    table = Table(Column("id", no_wrap=True), "name", "status", "images", "classes", box=None)
    with connect(url) as client:
        for dataset in client.datasets.list():
            if as_json:
                print_json(dataset)
                continue
            content = dataset.content
            counts = (str(content.num_train + content.num_test), str(len(content.labels))) if content else ("", "")
            table.add_row(dataset.id, escape(dataset.name), dataset.status, *counts)
    if not as_json:
        out.print(table)


@app.command()
def show(dataset_id: DatasetId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show a dataset and what validation found."""
    with connect(url) as client:
        _print(client.datasets.get(dataset_id), as_json)


@app.command()
def delete(dataset_id: DatasetId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Delete a dataset that no job needs any more."""
    with connect(url) as client:
        client.datasets.delete(dataset_id)
    if as_json:
        print_json({"id": dataset_id, "deleted": True})
    else:
        out.print(f"{dataset_id} is deleted")


@app.command()
def samples(
    dataset_id: DatasetId,
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")] = Path("samples.png"),
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Fetch a sheet of training images."""
    with connect(url) as client:
        image = client.datasets.samples(dataset_id)
    try:
        output.write_bytes(image)
    except OSError as error:
        fail(BAD_INPUT, f"{output}: {error.strerror or error}; name another place with --output")
    if as_json:
        print_json({"path": str(output), "bytes": len(image)})
    else:
        out.print(str(output), markup=False, soft_wrap=True)


@contextmanager
def _packed(path: Path) -> Iterator[Path]:
    """The file itself; a folder as a tar of what is not hidden in it, without times and owners.

    The same files are the same bytes, so that an upload that was interrupted is found again.
    """
    if not path.is_dir():
        yield path
        return
    root = path.resolve()
    with TemporaryDirectory() as folder:
        target = Path(folder) / f"{root.name}.tar"
        with tarfile.open(target, "w") as tar:
            for file in sorted(root.rglob("*")):
                name = file.relative_to(root)
                if file.is_file() and not any(part.startswith(".") for part in name.parts):
                    entry = tarfile.TarInfo(str(root.name / name))
                    entry.size = file.stat().st_size
                    with file.open("rb") as content:
                        tar.addfile(entry, content)
        yield target


def _print(dataset: Dataset, as_json: bool) -> None:
    if as_json:
        print_json(dataset)
        return
    lines = [f"{dataset.id}  {dataset.status}  {dataset.name}"]
    if dataset.content:
        shape = " x ".join(map(str, dataset.content.shape))
        counts = f"{dataset.content.num_train} train, {dataset.content.num_test} test"
        lines += [f"  {counts}, {len(dataset.content.labels)} classes, {shape}", f"  {dataset.content.digest}"]
    for finding in dataset.report.findings if dataset.report else ():
        lines.append(f"  {finding.severity}: {finding.code}: {finding.message}")
        lines += [f"  -> {option}" for argument, option in OPTIONS.items() if argument in finding.message]
    out.print("\n".join(lines), markup=False, soft_wrap=True)
