"""Makes of the files of a request what a network takes: image files are converted, arrays are taken as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from cnn.errors import DataCorrupt
from cnn.formats.image_folder import FORMATS, decode, read_header
from server.prediction.arrays import Shape, TooManyImages, is_array, read_images
from server.prediction.forms import SentFile
from server.prediction_schemas import MAX_IMAGES, Layout

PICTURE_CHANNELS = (1, 3)


class Refused(Exception):
    """What was sent is the reason why there is no answer: `kind` is what `server.routes.predictions` makes of it."""

    def __init__(self, kind: str, message: str, images: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.images = images or []


@dataclass(frozen=True)
class Image:
    """An image as it was sent; `server.prediction_schemas.PredictedImage` has the meaning of the fields."""

    file: int
    """Its number in the request, the first is 0."""
    name: str | None
    position: int | None
    height: int
    width: int
    warnings: list[str]


def decode_files(
    files: Sequence[SentFile], shape: Shape, layout: Layout | None
) -> tuple[list[Image], NDArray[np.uint8]]:
    """The images of all files, and their pixels (N, channels, height, width).

    Args:
        shape: of the network's images: channels, height and width.
        layout: axes of arrays, None to tell them by `shape`.

    Raises:
        Refused: there is none, there are more than `MAX_IMAGES`, or a file has none that can be used.
    """
    images: list[Image] = []
    pixels, faults = [], []
    for number, file in enumerate(files):
        content = BytesIO(file.content)
        try:
            if len(images) == MAX_IMAGES:
                raise TooManyImages
            if is_array(file.content):
                found, values = _of_array(number, file, shape, layout, MAX_IMAGES - len(images))
            else:
                found, values = _of_picture(number, file.name, content, shape)
        except TooManyImages as error:
            raise Refused("images", f"expected 1 to {MAX_IMAGES} images, got more than {MAX_IMAGES}") from error
        except (DataCorrupt, MemoryError) as error:
            faults.append({"image": number, "name": file.name, "message": _reason(error, content)})
            continue
        images += found
        pixels.append(values)
    if faults:
        raise Refused("images", f"{len(faults)} of {len(files)} images cannot be used", faults)
    if not images:
        raise Refused("images", f"expected 1 to {MAX_IMAGES} images, got none")
    return images, np.ascontiguousarray(np.concatenate(pixels))


def _of_array(
    number: int, file: SentFile, shape: Shape, layout: Layout | None, room: int
) -> tuple[list[Image], NDArray[np.uint8]]:
    values, is_several = read_images(file.content, shape, layout, room)
    positions = range(len(values)) if is_several else (None,)
    return [Image(number, file.name, position, *shape[1:], []) for position in positions], values


def _of_picture(number: int, name: str | None, content: BytesIO, shape: Shape) -> tuple[list[Image], NDArray[np.uint8]]:
    header = read_header(content)
    channels, *size = shape
    if channels not in PICTURE_CHANNELS:
        raise DataCorrupt(
            f"the network takes {channels} channels, and a picture has 1 or 3: send an array (.npy, .npz)"
        )
    content.seek(0)
    values = decode(content, (size[0], size[1]), channels)
    seen = {"transparency": header.has_alpha, "several_frames": header.has_frames, "turned": header.is_turned}
    warnings = [warning for warning, is_so in seen.items() if is_so]
    return [Image(number, name, None, *header.size, warnings)], values[None]


def _reason(error: DataCorrupt | MemoryError, file: BytesIO) -> str:
    """Why a file cannot be used, without the name that it has in memory."""
    if isinstance(error, MemoryError):
        return "decoding it takes more memory than an image may have"
    if isinstance(error.__cause__, UnidentifiedImageError):
        return f"expected an image as {', '.join(FORMATS)}, or an array as NPY or NPZ, got something else"
    return error.message.removeprefix(f"{file}: ")
