"""Classify images with the model beside this file: `python predict.py image.png ...`, one line of JSON for each.

Needs numpy, onnxruntime and Pillow, and nothing else. `python predict.py --verify` checks that every file of the bundle
is as it was made, and that the model gives the logits of `golden_logits.npy` for `golden_images.npy` on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).parent
TOLERANCE = 1e-4
"""Largest difference of a logit, in units of the largest logit where that is above 1."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", type=Path, help="files that Pillow can read")
    parser.add_argument("--verify", action="store_true", help="check the bundle instead")
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    if arguments.verify:
        return verify(session)
    labels = json.loads((HERE / "labels.json").read_text("utf-8"))
    for path in arguments.images:
        [logits] = session.run(["logits"], {"images": load(path, session)})
        probabilities = softmax(logits[0])
        best = [int(index) for index in np.argsort(-probabilities, kind="stable")[:5]]
        top = [{"label": labels[index], "probability": round(float(probabilities[index]), 6)} for index in best]
        sys.stdout.write(json.dumps({"image": str(path), **top[0], "top": top}, ensure_ascii=False) + "\n")
    return 0


def load(path: Path, session: onnxruntime.InferenceSession) -> np.ndarray:
    """The image as the network takes it: uint8 (1, channels, height, width), scaled where its size is another one."""
    _, channels, height, width = session.get_inputs()[0].shape
    if channels not in (1, 3):
        sys.exit(f"the network takes images of {channels} channels: give it arrays, as this script does with pictures")
    with Image.open(path) as image:
        picture = image.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(1, height, width, channels).transpose(0, 3, 1, 2)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials: np.ndarray = np.exp(logits - logits.max())
    exponentials /= exponentials.sum()
    return exponentials


def verify(session: onnxruntime.InferenceSession) -> int:
    for line in (HERE / "SHA256SUMS").read_text("utf-8").splitlines():
        expected, name = line.split("  ", 1)
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != expected:
            sys.stderr.write(f"{name} is not as it was made: expected the SHA-256 {expected}\n")
            return 1
    expected_logits = np.load(HERE / "golden_logits.npy")
    [logits] = session.run(["logits"], {"images": np.load(HERE / "golden_images.npy")})
    difference = float(np.abs(logits - expected_logits).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected_logits).max()))
    sys.stdout.write(f"largest difference of a logit: {difference:.2g}, allowed: {allowed:.2g}\n")
    return 0 if difference <= allowed else 1


if __name__ == "__main__":
    sys.exit(main())
