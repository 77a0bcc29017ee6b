"""`python -m cnn spec.json`: one training run here, without a server."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from cnn.checkpoints import generations
from cnn.determinism import set_threads
from cnn.errors import TrainingError
from cnn.events import Artifact, Event, Warning_, describe
from cnn.native import library
from cnn.spec import TrainingSpec
from cnn.training import train

EXIT_FAILED = 1
EXIT_BAD_SPEC = 2


def main() -> int:
    arguments = _parse_arguments()
    try:
        content = arguments.spec.read_text()
    except OSError as error:
        print(f"{arguments.spec}: {error.strerror}", file=sys.stderr)
        return EXIT_BAD_SPEC
    try:
        spec = TrainingSpec.model_validate_json(content)
    except ValidationError as error:
        for problem in _problems(error, content):
            print(f"{arguments.spec}: {problem}", file=sys.stderr)
        return EXIT_BAD_SPEC
    set_threads(arguments.threads)
    library.use(library.find())
    try:
        _run(spec, arguments)
    except TrainingError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cnn", description="Train the network of a spec.")
    parser.add_argument("spec", type=Path, help="JSON file, as in the body of POST /v1/jobs under `spec`")
    parser.add_argument("--data-dir", type=Path, default=Path("epochd-data"), help="where datasets lie")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output"),
        help="folder for artifacts and checkpoints, of which it keeps none of an earlier run",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="instead of what the spec says")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads, which fix the last bits")
    parser.add_argument("--init-from", type=Path, help="model.safetensors whose matching tensors to start from")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    return parser.parse_args()


def _run(spec: TrainingSpec, arguments: argparse.Namespace) -> None:
    checkpoints = arguments.output / "checkpoints"
    if checkpoints.exists() and not arguments.resume:
        shutil.rmtree(checkpoints)
    saved = generations(checkpoints)
    if arguments.resume and not saved:
        raise TrainingError(
            "checkpoint_invalid", f"there is no checkpoint in {checkpoints}", "user", "leave out --resume"
        )
    events = train(
        spec,
        spec.dataset.load(arguments.data_dir),
        device=arguments.device or _device(spec),
        checkpoints=checkpoints,
        artifacts=arguments.output,
        init_weights=arguments.init_from,
        resume_from=saved[0] if saved else None,
    )
    for event in events:
        _show(event)


def _device(spec: TrainingSpec) -> str:
    if spec.training.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return spec.training.device


def _show(event: Event) -> None:
    match event:
        case Artifact(name="model.safetensors"):
            print(f"{event.path}  sha256 {hashlib.sha256(event.path.read_bytes()).hexdigest()}")
        case Artifact():
            print(event.path)
        case Warning_():
            print(describe(event), file=sys.stderr)
        case _ if line := describe(event):
            print(line, flush=True)


def _problems(error: ValidationError, content: str) -> Iterator[str]:
    """Each as a JSON Pointer into the file and what is wrong there."""
    for problem in error.errors():
        pointer = ""
        if problem["type"] != "json_invalid":
            pointer = _pointer(problem["loc"], json.loads(content), missing=problem["type"] == "missing")
        pointer += problem.get("ctx", {}).get("pointer", "")
        yield f"{pointer or 'the file'}: {problem['msg']}"


def _pointer(location: tuple[str | int, ...], sent: Any, *, missing: bool) -> str:
    """Pydantic's location without the tags of unions, which are not in what was sent."""
    pointer = ""
    for index, part in enumerate(location):
        below = dict(enumerate(sent)) if isinstance(sent, list) else sent
        if isinstance(below, dict) and part in below:
            sent = below[part]
        elif not missing or index < len(location) - 1:
            continue
        pointer += f"/{part}"
    return pointer


if __name__ == "__main__":
    sys.exit(main())
