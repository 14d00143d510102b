"""Images read away from their voxels, under affine maps.

torch reads volumes voxel by voxel and pictures many pixels at a time. On a CPU a
volume is therefore read as a tall picture, its planes one below the other: each
position is read in the two planes next to it, and the two are mixed. The same
interpolation, four times as fast there and twice on the way back.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.grid import Grid

# float32 places a row of a tall picture to about this share of its height.
_ROW_ERROR = 2.0**-23
_MOST_PARTS = 8
_BILINEAR, _BORDER, _CORNERS = 0, 1, False


def resample(image: Tensor, grid: Grid, matrix: Tensor, shift: Tensor) -> Tensor:
    """Resample images under affine maps, linearly, with their borders repeated.

    Parameters
    ----------
    image : Tensor, (batch, channel, *shape)
        The images.
    grid : Grid
        Their grid.
    matrix, shift : Tensor, ([batch,] ndim, ndim) and ([batch,] ndim)
        The maps from output to input positions, mm from the grid's middle: one for all images or one each.

    Returns
    -------
    Tensor
        Images of the same shape. On a CPU, positions in volumes are off by up to 2e-7 of the number of
        rows, the product of the first two edges: 0.002 voxels in 160 x 192 x 160.
    """
    tall = grid.ndim == 3 and image.device.type == "cpu" and image.dtype == torch.float32
    if tall and image.shape[1] == 1 and min(grid.shape[:2]) > 1:
        out: Tensor = _Tall.apply(image, *_tall_positions(len(image), grid, matrix, shift))
        return out
    positions = _positions(image, grid, matrix, shift)
    if grid.ndim == 1:
        # torch samples pictures and volumes only: a line is a picture of one row.
        positions = functional.pad(positions, (0, 1)).unsqueeze(1)
        return sample(image.unsqueeze(-2), positions).squeeze(-2)
    return sample(image, positions)


def sample(image: Tensor, positions: Tensor) -> Tensor:
    """Read images at positions from -1 to 1 between their faces, linearly, with their borders repeated."""
    return functional.grid_sample(image, positions, padding_mode="border", align_corners=False)


def half(grid: Grid) -> Tensor:
    """Return the distance from the grid's middle to its faces, mm, float64."""
    edges = [size * step for size, step in zip(grid.shape, grid.voxel_size, strict=True)]
    return torch.tensor(edges, dtype=torch.float64) / 2


class _Tall(torch.autograd.Function):
    """Linear interpolation between the two planes next to each position, each read as part of a picture."""

    @staticmethod
    def forward(context: Any, image: Tensor, places: Tensor, share: Tensor) -> Tensor:
        context.save_for_backward(places, share)
        context.shape = image.shape
        pair = torch.grid_sampler_2d(_pair(image, len(places)), places, _BILINEAR, _BORDER, _CORNERS)
        near, far = pair.unbind(1)
        return torch.lerp(near, far, share).reshape(image.shape)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (places, share), (slope,) = context.saved_tensors, slopes
        slope = slope.reshape(share.shape)
        both = slope.new_empty(len(share), 2, *share.shape[1:])
        torch.mul(slope, share, out=both[:, 1])
        torch.sub(slope, both[:, 1], out=both[:, 0])
        # The picture itself does not count: its values are no part of a linear map's gradient.
        like = _pair(slope.new_empty(context.shape), len(places))
        pair, _ = torch.ops.aten.grid_sampler_2d_backward(
            both, like, places, _BILINEAR, _BORDER, _CORNERS, [True, False]
        )
        batch, _, planes, *plane = context.shape
        near, far = pair.reshape(batch, -1, 2, planes - 1, *plane).sum(1).unbind(1)
        total = functional.pad(near, (0, 0, 0, 0, 0, 1))
        total[:, 1:] += far
        return total.unsqueeze(1), None, None


def _pair(image: Tensor, parts: int) -> Tensor:
    """View volumes `(batch, 1, X, Y, Z)` as tall pictures of two channels, one plane apart."""
    batch, _, planes, rows, columns = image.shape
    image = image.contiguous()
    size = batch, 2, (planes - 1) * rows, columns
    pictures = image.as_strided(size, (planes * rows * columns, rows * columns, columns, 1))
    return pictures.repeat_interleave(parts // batch, 0) if batch > 1 else pictures.expand(parts, -1, -1, -1)


@torch.no_grad()
def _tall_positions(batch: int, grid: Grid, matrix: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return where in a tall picture each voxel is read, and how much of the farther plane it takes.

    Returns
    -------
    places : Tensor, (parts, rows, Z, 2)
        From -1 to 1, the column first; the threads share the parts.
    share : Tensor, (parts, rows, Z)
        From 0 to 1.
    """
    planes, rows, columns = grid.shape
    lines = _lines(batch, grid, matrix, shift)
    plane, row = (_sum(lines[axis]) for axis in (0, 1))
    first = plane.clamp_(0, planes - 1).floor().clamp_(max=planes - 2)
    share = plane.sub_(first)
    height = (planes - 1) * rows
    # A row that is off must not reach into the next plane.
    margin = height * _ROW_ERROR
    row.clamp_(margin, rows - 1 - margin).add_(first, alpha=rows)
    places = row.new_empty(*row.shape, 2)
    torch.mul(row, 2 / height, out=places[..., 1]).add_(1 / height - 1)
    along, across, last = ((2 / columns) * line for line in lines[2])
    torch.add(along + (across + (1 / columns - 1)), last, out=places[..., 0])
    parts = _parts(batch, planes * rows)
    return places.reshape(parts, -1, columns, 2), share.reshape(parts, -1, columns)


def _lines(batch: int, grid: Grid, matrix: Tensor, shift: Tensor) -> list[list[Tensor]]:
    """Return, for each axis, the voxel index that is read as a sum of three lines, float32."""
    step = torch.tensor(grid.voxel_size, dtype=torch.float64)
    middle = (torch.tensor(grid.shape, dtype=torch.float64) - 1) / 2
    turned = (matrix * step / step[:, None]).expand(batch, 3, 3)
    origin = (shift / step).expand(batch, 3) + middle
    found = []
    for axis in range(3):
        lines = []
        for other, size in enumerate(grid.shape):
            line = torch.arange(size, dtype=torch.float64) - middle[other]
            part = turned[:, axis, other, None] * line + (origin[:, axis, None] if other == 0 else 0)
            lines.append(part.float().reshape(-1, *(size if n == other else 1 for n in range(3))))
        found.append(lines)
    return found


def _sum(lines: list[Tensor]) -> Tensor:
    first, second, last = lines
    return (first + second) + last


def _parts(batch: int, rows: int) -> int:
    """Return into how many parts of equal length the pictures are cut, for each thread at least one."""
    wanted = min(_MOST_PARTS, math.ceil(torch.get_num_threads() / batch))
    return batch * next(parts for parts in range(wanted, 0, -1) if rows % parts == 0)


def _positions(image: Tensor, grid: Grid, matrix: Tensor, shift: Tensor) -> Tensor:
    """Return where each voxel is read, `(batch, *shape, ndim)`, from -1 to 1 between the grid's faces.

    Sums of lines rather than a product of matrices: no item's rounding depends on the batch.
    """
    extent = half(grid).to(matrix)
    # torch counts the axes of a position from the last one.
    columns = (matrix / extent[:, None]).flip(-2).expand(len(image), grid.ndim, grid.ndim)
    origin = (shift / extent).flip(-1).expand(len(image), grid.ndim)
    positions = origin.reshape(-1, *(1,) * grid.ndim, grid.ndim).to(image)
    for axis, (size, step) in enumerate(zip(grid.shape, grid.voxel_size, strict=True)):
        line = (torch.arange(size).to(matrix) + 0.5) * step - extent[axis]
        view = [len(image), *(1,) * grid.ndim, grid.ndim]
        view[1 + axis] = size
        positions = positions + (line[:, None] * columns[:, None, :, axis]).reshape(view).to(image)
    return positions
