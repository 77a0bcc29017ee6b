"""Geometric transforms that interpolate: one 3 × 3 matrix a sample, one bilinear resampling.

A matrix maps a pixel of the result to the place in the source where its value comes from. Coordinates are in pixels
from the middle of the image, x to the right and y down; (x, y, 1) is a column. A transform A and then B is A @ B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnn.native.library import used
from cnn.transforms.constants import constant
from cnn.transforms.sampling import Motion
from cnn.transforms.selection import change


def stacked(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    """Matrices (N, 3, 3) from their entries: numbers, or tensors of the shape (N,) of `like`."""
    constants = {entry: torch.full_like(like, entry) for row in rows for entry in row if not isinstance(entry, Tensor)}
    entries = [entry if isinstance(entry, Tensor) else constants[entry] for row in rows for entry in row]
    return torch.stack(entries, dim=1).view(len(like), 3, 3)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Enlarge by the factors x and y (N,); below 1 it makes smaller."""
    return stacked([[1 / x, 0, 0], [0, 1 / y, 0], [0, 0, 1]], x)


def translation(right: Tensor, down: Tensor) -> Tensor:
    """Move by so many pixels (N,)."""
    return stacked([[1, 0, -right], [0, 1, -down], [0, 0, 1]], right)


def rotation(degrees: Tensor) -> Tensor:
    """Turn counter-clockwise about the middle, (N,) in degrees."""
    angle = degrees.deg2rad()
    cos, sin = angle.cos(), angle.sin()
    return stacked([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], degrees)


def shearing(x: Tensor, y: Tensor) -> Tensor:
    """Move rows by -x times their distance below the middle, then columns by -y times theirs to the right: (N,)."""
    return stacked([[1 + x * y, x, 0], [y, 1, 0], [0, 0, 1]], x)


def crop(left: Tensor, top: Tensor, width: Tensor, height: Tensor, size: tuple[int, int]) -> Tensor:
    """The window at (left, top), enlarged to the size (height, width) of the image. All (N,), in pixels."""
    x = left + width / 2 - size[1] / 2
    y = top + height / 2 - size[0] / 2
    return stacked([[width / size[1], 0, x], [0, height / size[0], y], [0, 0, 1]], x)


def perspective(moved: Tensor, size: tuple[int, int]) -> Tensor:
    """The homography that carries the corners of the image to `moved` (N, 4, 2).

    Corners are clockwise from the top left, as (x, y) in pixels from the middle.
    """
    ends = torch.nn.functional.pad(moved.double(), (0, 1), value=1)
    # As coordinates of the plane take three points and their sum, up to factors: the fourth of a rectangle's is the
    # first less the second plus the third.
    first, second, third, fourth = ends.unbind(1)
    inverse = torch.linalg.cross(torch.stack([second, third, first], 1), torch.stack([third, first, second], 1))
    x, y = size[1] / 2, size[0] / 2
    basis = constant(((-x, -y, 1.0), (-x, y, -1.0), (x, y, 1.0)), moved.device, torch.float64)
    matrices: Tensor = (basis.T / (inverse @ fourth[:, :, None]).mT) @ inverse
    return (matrices / matrices[:, 2:, 2:]).float()


def motion_matrix(motion: Motion) -> Tensor:
    """The matrix of a whole-pixel transform."""
    down, right = motion.shift.float()
    y, x = 1 - 2 * motion.mirror.float()
    return stacked([[x, 0, -right], [0, y, -down], [0, 0, 1]], x)


def warp(images: Tensor, matrices: Tensor, fill: float = 0, *, projective: bool = False) -> Tensor:
    """The images (N, C, H, W), as float32, resampled bilinearly by matrices (N, 3, 3).

    Outside the source everything has the value `fill`. There is no low-pass filter before an image is made smaller.
    Where a matrix may have another last row than (0, 0, 1), say so with `projective`.
    """
    library = used()
    if library and library.warping.takes(images, matrices):
        return library.warping.apply(images, matrices, fill, projective=projective)
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    # Coordinates of torch's grids reach from -1 to 1 between the outer edges of the image.
    matrices = matrices * constant(((2 / width,), (2 / height,), (1.0,)), images.device)

    def product(rows: slice) -> Tensor:
        """These rows of the matrices times (x, y, 1) of every pixel, (N, rows, H, W): one addition a pixel."""
        of_x, of_y, constant = matrices[:, rows, :, None].unbind(2)
        return (of_y * y + constant)[..., None] + (of_x * x)[:, :, None]

    grid = product(slice(0, 2))
    if projective:
        scale = product(slice(2, 3))
        # A point behind the horizon of a homography is nowhere in the source.
        grid = grid.div_(scale).masked_fill_(scale <= 0, 3.0)
    grid = grid.permute(0, 2, 3, 1)
    source = images.float() - fill if fill else images.float()
    result = torch.nn.functional.grid_sample(source, grid, padding_mode="zeros", align_corners=False)
    return result.add_(fill) if fill else result


def warp_some(images: Tensor, matrices: Tensor, fill: float = 0) -> Tensor:
    """As a projective `warp` of images of which many stay as they are."""
    library = used()
    if library and library.warping.takes(images, matrices):
        return library.warping.apply(images, matrices, fill, projective=True)  # which only copies those
    moved = (matrices != torch.eye(3, device=images.device)).flatten(1).any(dim=1)
    floats = images.to(torch.float32, copy=True)
    return change(floats, moved, lambda some, rows: warp(some, matrices[rows], fill, projective=True))
