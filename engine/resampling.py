"""Images read away from their voxels, under affine maps.

torch reads volumes voxel by voxel and pictures many pixels at a time. On a CPU a
volume is therefore read as a tall picture, its planes one below the other: each
position is read in the two planes next to it, and the two are mixed. The same
interpolation, four times as fast there and twice on the way back.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.grid import Grid
from engine.itemwise import each

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
        return each(sample, image.unsqueeze(-2), positions).squeeze(-2)
    return each(sample, image, positions)


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
        out = image.new_empty(image.shape)
        # One volume at a time, as all threads share its parts: neither memory nor bits depend on the batch.
        for whole, place, mix, goal in zip(image, places, share, out, strict=True):
            pair = torch.grid_sampler_2d(_pair(whole, len(place)), place, _BILINEAR, _BORDER, _CORNERS)
            torch.lerp(pair[:, 0], pair[:, 1], mix, out=goal.view(mix.shape))
        return out

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (places, share), (slope,) = context.saved_tensors, slopes
        slope = slope.reshape(share.shape)
        parts, *lines = share.shape[1:]
        both = slope.new_empty(len(share), parts, 2, *lines)
        torch.mul(slope, share, out=both[:, :, 1])
        torch.sub(slope, both[:, :, 1], out=both[:, :, 0])
        total = slope.new_zeros(context.shape)
        # The picture itself does not count: its values are no part of a linear map's gradient.
        like = _pair(slope.new_empty(context.shape[1:]), parts)
        for ends, place, goal in zip(both, places, total[:, 0], strict=True):
            pair, _ = torch.ops.aten.grid_sampler_2d_backward(
                ends, like, place, _BILINEAR, _BORDER, _CORNERS, [True, False]
            )
            planes = pair.sum(0) if parts > 1 else pair[0]
            near, far = planes.view(2, -1, *goal.shape[1:])
            goal[:-1] = near
            goal[1:] += far
        return total, None, None


def _pair(image: Tensor, parts: int) -> Tensor:
    """View a volume `(1, X, Y, Z)` as a tall picture of two channels, one plane apart, `parts` times."""
    _, planes, rows, columns = image.shape
    size = parts, 2, (planes - 1) * rows, columns
    return image.contiguous().as_strided(size, (0, rows * columns, columns, 1))


@torch.no_grad()
def _tall_positions(batch: int, grid: Grid, matrix: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return where in a tall picture each voxel is read, and how much of the farther plane it takes.

    Returns
    -------
    places : Tensor, (batch, parts, rows, Z, 2)
        From -1 to 1, the column first; the threads share the parts.
    share : Tensor, (batch, parts, rows, Z)
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
    parts = _parts(planes * rows)
    return places.reshape(batch, parts, -1, columns, 2), share.reshape(batch, parts, -1, columns)


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


def _parts(rows: int) -> int:
    """Return into how many parts of equal length a picture is cut, if possible one for each thread."""
    wanted = min(_MOST_PARTS, torch.get_num_threads())
    return next(parts for parts in range(wanted, 0, -1) if rows % parts == 0)


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
