"""What the API predicts for images. Only pydantic is needed to read it, so that client and server share these types."""

from __future__ import annotations

from typing import Literal

from server.schemas import Answer

MAX_IMAGES = 64
MAX_BYTES = 2**24
"""Of all images of a request together."""
ARRAY_SUFFIXES = (".npy", ".npz")
Layout = Literal["NHW", "NHWC", "NCHW"]
"""Axes of an array of images, those of `cnn.local_datasets`, without which a client does; one image has no `N`."""
DEFAULT_TOP_K = 5
MAX_TOP_K = 100


class Prediction(Answer):
    label: str
    index: int
    """Of the class: the place of its label in `labels.json`, and of its logit in the network's output."""
    probability: float


class PredictedImage(Answer):
    name: str | None
    """Of the file that was sent, where the request names it."""
    position: int | None
    """Which image of an array of several it is, the first is 0; null for a file of one image."""
    height: int
    """In pixels, as it was sent; the network saw it in the size of its training images."""
    width: int
    warnings: tuple[str, ...]
    """What the network did not see, as in training: `transparency`, further frames (`several_frames`), or how EXIF asks
    to show it (`turned`)."""
    predictions: tuple[Prediction, ...]
    """The most probable class first."""


class PredictionTimings(Answer):
    wait_seconds: float
    """Until a process with the model was free; the first request to a model starts one."""
    decode_seconds: float
    model_seconds: float


class Predictions(Answer):
    data: tuple[PredictedImage, ...]
    """In the order of the images."""
    model: str
    """The artifact that has answered."""
    sha256: str
    """Of the artifact."""
    timings: PredictionTimings
