"""How rough volumes are, with a gradient that is made on the way."""

from typing import Any

import torch
from torch import Tensor

from engine.grid import Grid
from engine.itemwise import means

# The square of a slope far below a grey level per mm: the root of zero itself has no slope.
_FLAT = 1e-8


def gradient_length(image: Tensor, grid: Grid) -> Tensor:
    """Return the mean length of the intensity gradient (Rudin, Osher, Fatemi 1992).

    Parameters
    ----------
    image, grid : Tensor, (batch, 1, *shape), and Grid
        Volumes, model units, and their grid.

    Returns
    -------
    Tensor, (batch,)
        Model units per mm; 1e-4 where all is flat.
    """
    lengths: Tensor = _Lengths.apply(image, grid)
    return lengths


class _Lengths(torch.autograd.Function):
    """Mean gradient lengths; their own gradient is made on the way, while the differences are at hand."""

    @staticmethod
    def forward(context: Any, image: Tensor, grid: Grid) -> Tensor:
        axes = list(zip(grid.axes, grid.voxel_size, strict=True))
        # The border is repeated: no gradient leads out of the volume.
        steps = [image.diff(dim=axis).div_(size) for axis, size in axes]
        square = torch.full_like(image, _FLAT)
        for (axis, _), step in zip(axes, steps, strict=True):
            square.narrow(axis, 0, step.shape[axis]).addcmul_(step, step)
        lengths = square.sqrt_()
        found = means(lengths)
        if context.needs_input_grad[0]:
            count = lengths[0].numel()
            slope = torch.zeros_like(image)
            for (axis, size), step in zip(axes, steps, strict=True):
                inner = step.shape[axis]
                pull = step.div_(lengths.narrow(axis, 0, inner))
                slope.narrow(axis, 0, inner).sub_(pull, alpha=1 / (size * count))
                slope.narrow(axis, 1, inner).add_(pull, alpha=1 / (size * count))
            context.save_for_backward(slope)
        return found

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        ((slope,), (weights,)) = context.saved_tensors, slopes
        return slope * weights.reshape(-1, *(1,) * (slope.ndim - 1)), None
