"""Geometric transforms that interpolate: one 3 × 3 matrix a sample, one bilinear resampling.

A matrix maps a pixel of the result to the place in the source where its value comes from. Coordinates are in pixels
from the middle of the image, x to the right and y down; (x, y, 1) is a column. A transform A and then B is A @ B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnn.transforms.sampling import Motion


def stacked(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    """Matrices (N, 3, 3) from their entries: numbers, or tensors of the shape (N,) of `like`."""
    entries = [entry if isinstance(entry, Tensor) else torch.full_like(like, entry) for row in rows for entry in row]
    return torch.stack(entries, dim=1).reshape(len(like), 3, 3)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Enlarge by the factors x and y (N,); below 1 it makes smaller."""
    return stacked([[1 / x, 0, 0], [0, 1 / y, 0], [0, 0, 1]], x)


def translation(right: Tensor, down: Tensor) -> Tensor:
    """Move by so many pixels (N,)."""
    return stacked([[1, 0, -right], [0, 1, -down], [0, 0, 1]], right)


def rotation(degrees: Tensor) -> Tensor:
    """Turn counter-clockwise about the middle, (N,) in degrees."""
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return stacked([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], degrees)


def shearing(x: Tensor, y: Tensor) -> Tensor:
    """Move rows by -x times their distance below the middle, then columns by -y times theirs to the right: (N,)."""
    one = torch.ones_like(x)
    return stacked([[one, x, 0], [0, one, 0], [0, 0, one]], x) @ stacked([[one, 0, 0], [y, one, 0], [0, 0, one]], x)


def crop(left: Tensor, top: Tensor, width: Tensor, height: Tensor, size: tuple[int, int]) -> Tensor:
    """The window at (left, top), enlarged to the size (height, width) of the image. All (N,), in pixels."""
    x = left + width / 2 - size[1] / 2
    y = top + height / 2 - size[0] / 2
    return translation(-x, -y) @ scaling(size[1] / width, size[0] / height)


def perspective(moved: Tensor, size: tuple[int, int]) -> Tensor:
    """The homography that carries the corners of the image to `moved` (N, 4, 2).

    Corners are clockwise from the top left, as (x, y) in pixels from the middle.
    """
    half = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64, device=moved.device)
    signs = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64, device=moved.device)
    u, v = (signs * half).expand(len(moved), 4, 2).unbind(2)
    x, y = moved.double().unbind(2)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    # u (g x + h y + 1) = a x + b y + c and likewise v, for the eight unknowns a … h.
    equations = torch.cat(
        [
            torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=2),
            torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=2),
        ],
        dim=1,
    )
    solution = torch.linalg.solve(equations, torch.cat([u, v], dim=1))
    return torch.cat([solution, one[:, :1]], dim=1).reshape(-1, 3, 3).float()


def motion_matrix(motion: Motion) -> Tensor:
    """The matrix of a whole-pixel transform."""
    down, right = motion.shift.float()
    y, x = 1 - 2 * motion.mirror.float()
    return translation(right, down) @ scaling(x, y)


def warp(images: Tensor, matrices: Tensor, fill: float = 0, *, projective: bool = False) -> Tensor:
    """The images (N, C, H, W), as float32, resampled bilinearly by matrices (N, 3, 3).

    Outside the source everything has the value `fill`. There is no low-pass filter before an image is made smaller.
    Where a matrix may have another last row than (0, 0, 1), say so with `projective`.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    # Coordinates of torch's grids reach from -1 to 1 between the outer edges of the image.
    matrices = matrices * torch.tensor([[2 / width], [2 / height], [1]], device=images.device)

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
    return result + fill if fill else result
