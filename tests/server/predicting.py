"""A job whose network was trained and exported for real, and images as files."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn.events import Artifact
from cnn.spec import TrainingSpec
from cnn.training import train

FILES = ("model.safetensors", "model.onnx", "labels.json")


def trained(spec: Mapping[str, Any], folder: Path, data_dir: Path) -> dict[str, bytes]:
    """The artifacts of a run that predictions need, by name."""
    parsed = TrainingSpec.model_validate(spec)
    events = list(train(parsed, parsed.dataset.load(data_dir), artifacts=folder))
    made = {event.name: event.path for event in events if isinstance(event, Artifact)}
    return {name: made[name].read_bytes() for name in FILES}


def picture(pixels: NDArray[np.uint8], format: str = "png", size: tuple[int, int] | None = None) -> bytes:
    """The file of an image (channels, H, W), resized to (W, H) where a size is given."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    file = BytesIO()
    (image.resize(size) if size else image).save(file, format)
    return file.getvalue()
