"""Reads images from arrays that were sent: NPY files, and NPZ files, which are zip archives of them.

Nothing is unpickled. Shape and type come from the header, and the array is read only where it has no more images of the
network's size than are wanted: what a member of an archive would unpack to is bounded by that.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cnn.errors import DataCorrupt
from cnn.formats.npz import read_header
from server.prediction_schemas import Layout
from server.wording import quoted, shorten

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""
ZIP_STARTS = (b"PK\3\4", b"PK\5\6")
PREFERRED = "images.npy"
"""The array of an NPZ file with several."""
MAX_NAMED = 10
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
# What the readers raise on damaged files.
_UNREADABLE = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
    struct.error,
    zlib.error,
)


class TooManyImages(Exception):
    """An array has more images than are wanted."""


def is_array(content: bytes) -> bool:
    return content.startswith((npy.MAGIC_PREFIX, *ZIP_STARTS))


def read_images(content: bytes, shape: Shape, layout: Layout | None, room: int) -> tuple[NDArray[np.uint8], bool]:
    """The images (N, channels, height, width) of an array, and whether it has an axis `N`.

    Args:
        content: of an NPY or NPZ file.
        shape: of the images that the network takes. Those of the array must have it.
        layout: axes of the array, of which one image has no `N`; None to tell them by `shape`.
        room: how many images there may be.

    Raises:
        DataCorrupt: it is no array of such images.
        TooManyImages: there is no room for them.
    """
    try:
        if content.startswith(npy.MAGIC_PREFIX):
            return _images(lambda: BytesIO(content), shape, layout, room)
        with zipfile.ZipFile(BytesIO(content)) as archive:
            member = _member(archive)
            return _images(lambda: archive.open(member), shape, layout, room)
    except _UNREADABLE as error:
        reason = shorten(str(error))  # NumPy quotes what it cannot read
        raise DataCorrupt(f"expected an array as an NPY or NPZ file, got one that cannot be read: {reason}") from error


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The array of an NPZ file that has the images."""
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if PREFERRED not in names and len(names) != 1:
        found = ", ".join(quoted(name.removesuffix(".npy")) for name in names[:MAX_NAMED])
        raise DataCorrupt(f"expected an NPZ file with one array, or with one called images, found: {found or 'none'}")
    member = archive.getinfo(PREFERRED if PREFERRED in names else names[0])
    if member.compress_type not in _COMPRESSIONS or member.flag_bits & _ENCRYPTED:
        raise DataCorrupt("expected an NPZ file as numpy.savez or numpy.savez_compressed writes it")
    return member


def _images(
    open_array: Callable[[], IO[bytes]], shape: Shape, layout: Layout | None, room: int
) -> tuple[NDArray[np.uint8], bool]:
    with open_array() as file:
        declared, dtype = read_header(file)
    if dtype != np.uint8:
        hint = "" if dtype.hasobject else "; floats from 0 to 1 become bytes by (255 * images).round().astype('uint8')"
        raise DataCorrupt(f"expected uint8 values from 0 to 255, got {shorten(str(dtype))}{hint}")
    axes = _axes(declared, shape, layout)
    is_several = len(declared) == len(axes)
    if is_several and declared[0] > room:
        raise TooManyImages
    with open_array() as file:
        array: NDArray[np.uint8] = npy.read_array(file, allow_pickle=False)
    images = array if is_several else array[None]
    if axes == "NHW":
        return images[:, None], is_several
    return np.moveaxis(images, 3, 1) if axes == "NHWC" else images, is_several


def _axes(declared: tuple[int, ...], shape: Shape, layout: Layout | None) -> Layout:
    """The layout of which an array of the declared shape has several images, or one without `N`. Raises DataCorrupt."""
    channels, height, width = shape
    shapes: dict[Layout, tuple[int, ...]] = {"NHWC": (height, width, channels), "NCHW": (channels, height, width)}
    if channels == 1:
        shapes = {"NHW": (height, width), **shapes}
    fitting = [axes for axes, one in shapes.items() if declared == one or (declared[1:] == one and declared[0] > 0)]
    if layout is not None:
        fitting = [axes for axes in fitting if axes == layout]
    elif channels > 1 and len(fitting) > 1:  # images of one channel are the same in each
        raise DataCorrupt(f"the axes of an array {declared} may be {' or '.join(fitting)}: say which by layout")
    if not fitting:
        wanted = " or ".join(shapes) if layout is None else layout
        raise DataCorrupt(
            f"expected {wanted}, or one image without N, of {channels} channels, height {height} and width {width}, "
            f"got an array of shape {shorten(str(declared))}"
        )
    return fitting[0]
