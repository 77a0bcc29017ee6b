"""`python -m server.prediction.process MODEL LABELS`: answers what classes images are of, by one model.

Each question is a line of JSON on standard input with the body of a request behind it, each answer a line of JSON on
standard output; the first line says that the model is loaded. Files come from anybody: this process has a limit of
memory, a time for each question, no credentials, and it ends when its input does.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.prediction.decoding import Image, Refused, decode_files
from server.prediction.forms import MalformedForm, SentFile, files_of
from server.prediction_schemas import MAX_IMAGES, Layout
from worker.limits import set_limits

MEMORY_BYTES = 2 * 2**30
"""Beside the model, which may take several times its size: enough for the largest image that is decoded."""
MODEL_COPIES = 4
NICENESS = 5
"""Whoever trains on the same cores comes first."""
BATCH_SIZE = 16


class Network:
    """A model and the labels of its outputs."""

    def __init__(self, model: Path, labels: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep what the largest request took
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._labels: list[str] = json.loads(labels.read_text("utf-8"))
        _, channels, height, width = self._session.get_inputs()[0].shape
        self._shape = (channels, height, width)

    def answer(self, body: bytes, content_type: str, top_k: int, mirror: bool, layout: Layout | None) -> dict[str, Any]:
        """What `server.prediction_schemas.Predictions` says of the images. Raises Refused."""
        start = time.perf_counter()
        images, pixels = decode_files(_sent(body, content_type), self._shape, layout)
        decoded = time.perf_counter()
        probabilities = self._probabilities(images, pixels, mirror)
        seconds = {"decode_seconds": decoded - start, "model_seconds": time.perf_counter() - decoded}
        data = [self._told(image, row, top_k) for image, row in zip(images, probabilities, strict=True)]
        return {"data": data, "timings": seconds}

    def _told(self, image: Image, probabilities: NDArray[np.float64], top_k: int) -> dict[str, Any]:
        best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
        predictions = [
            {"label": self._labels[index], "index": index, "probability": float(probabilities[index])} for index in best
        ]
        described = asdict(image)
        del described["file"]
        return {**described, "predictions": predictions}

    def _probabilities(self, images: list[Image], pixels: NDArray[np.uint8], mirror: bool) -> NDArray[np.float64]:
        """The softmax of the logits, in float64; with `mirror` of their mean over each image and its mirror image."""
        batches = []
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = pixels[start : start + BATCH_SIZE]
            [logits] = self._session.run(["logits"], {"images": batch})
            if mirror:
                [others] = self._session.run(["logits"], {"images": np.ascontiguousarray(batch[..., ::-1])})
                logits = (logits + others) / 2
            batches.append(logits)
        logits = np.concatenate(batches).astype(np.float64)
        if not (finite := np.isfinite(logits).all(axis=1)).all():
            faults = [_not_finite(image) for image, is_finite in zip(images, finite, strict=True) if not is_finite]
            raise Refused("images", "the network has no answer for some images", faults)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities


def main() -> None:
    model, labels = map(Path, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the server, whose end is ours
    os.nice(NICENESS)
    memory = MEMORY_BYTES + MODEL_COPIES * model.stat().st_size
    set_limits({resource.RLIMIT_AS: memory, resource.RLIMIT_NOFILE: 64, resource.RLIMIT_CORE: 0})
    # What libraries print goes to the log.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers, open(0, "rb", closefd=False) as questions:
        os.dup2(2, 1)
        network = Network(model, labels)
        _say(answers, {"ready": True})
        while line := questions.readline():
            question = json.loads(line)
            body = questions.read(question.pop("num_bytes"))
            # The kernel ends a process that takes longer, also when nobody is left who waits for it.
            signal.alarm(question.pop("seconds"))
            try:
                answer = network.answer(body, **question)
            except Refused as error:
                answer = {"refused": {"kind": error.kind, "message": str(error), "images": error.images}}
            signal.alarm(0)
            _say(answers, answer)


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer, allow_nan=False) + "\n")
    answers.flush()


def _sent(body: bytes, content_type: str) -> list[SentFile]:
    try:
        files = files_of(body, content_type)
    except MalformedForm as error:
        raise Refused("form", str(error)) from error
    if not 0 < len(files) <= MAX_IMAGES:
        got = f"more than {MAX_IMAGES}" if files else "none"
        raise Refused("images", f"expected 1 to {MAX_IMAGES} images, got {got}")
    return files


def _not_finite(image: Image) -> dict[str, Any]:
    which = "it" if image.position is None else f"image {image.position} of the array"
    return {"image": image.file, "name": image.name, "message": f"the network's output for {which} is not finite"}


if __name__ == "__main__":
    main()
