"""What the volume must survive: random changes of geometry.

A picture that only works at one exact position is noise that the network
happens to like. Moving, turning and scaling it a little before every step
(Olah et al. 2017) leaves what a unit really looks for. All of it is one affine
map, so the volume is resampled once.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.fields import Checked, number
from engine.grid import Grid


@dataclass(frozen=True)
class Transforms(Checked):
    """Ranges of the random affine map that each step draws.

    Parameters
    ----------
    jitter_mm : float
        Largest shift along each axis, mm.
    rotation_degrees : float
        Largest rotation about each axis (in the plane for pictures), degrees.
    scale : float
        Largest relative change of size.
    """

    jitter_mm: float = number(8.0, minimum=0, maximum=100, unit="mm", doc="Largest shift along each axis.")
    rotation_degrees: float = number(20.0, minimum=0, maximum=180, unit="degrees", doc="Largest rotation.")
    scale: float = number(0.15, minimum=0, maximum=0.5, doc="Largest relative change of size.")

    @property
    def any(self) -> bool:
        """Whether anything moves at all."""
        return bool(self.jitter_mm or self.rotation_degrees or self.scale)

    def draw(self, ndim: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one map from output to input positions, both from the middle in mm.

        Parameters
        ----------
        ndim : int
            Number of axes.
        generator : torch.Generator
            Source of the draw, on the CPU.

        Returns
        -------
        matrix : Tensor, (ndim, ndim), float64
            Rotation and scale.
        shift : Tensor, (ndim,), float64
            Shift, mm.
        """
        planes = [(a, b) for a in range(ndim) for b in range(a + 1, ndim)]
        draws = 2 * torch.rand(ndim + len(planes) + 1, generator=generator, dtype=torch.float64) - 1
        matrix = torch.eye(ndim, dtype=torch.float64)
        for (a, b), draw in zip(planes, draws[ndim:-1], strict=True):
            angle = math.radians(self.rotation_degrees) * float(draw)
            turn = torch.eye(ndim, dtype=torch.float64)
            turn[a, a] = turn[b, b] = math.cos(angle)
            turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
            matrix = matrix @ turn
        return matrix / (1 + self.scale * draws[-1]), self.jitter_mm * draws[:ndim]


def resample(image: Tensor, grid: Grid, matrix: Tensor, shift: Tensor) -> Tensor:
    """Resample an image under an affine map, linearly, with its border repeated.

    Parameters
    ----------
    image : Tensor, (batch, channel, *shape)
        The image.
    grid : Grid
        Its grid.
    matrix, shift : Tensor, (ndim, ndim) and (ndim,)
        The map from output to input positions, mm from the grid's middle.

    Returns
    -------
    Tensor
        An image of the same shape.
    """
    half = torch.tensor([n * size / 2 for n, size in zip(grid.shape, grid.voxel_size, strict=True)])
    half = half.to(matrix)
    theta = torch.cat([matrix * half / half[:, None], (shift / half)[:, None]], dim=1)
    # torch counts axes from the last one.
    theta = torch.cat([theta[:, :-1].flip(0, 1), theta[:, -1:].flip(0)], dim=1)
    if grid.ndim == 1:
        # torch samples pictures and volumes only: a line is a picture of one row.
        theta = torch.stack(
            [torch.cat([theta[0, :1], theta.new_zeros(1), theta[0, 1:]]), theta.new_tensor([0, 1, 0])]
        )
        return _sample(image.unsqueeze(-2), theta).squeeze(-2)
    return _sample(image, theta)


def _sample(image: Tensor, theta: Tensor) -> Tensor:
    theta = theta.to(image).expand(len(image), *theta.shape)
    positions = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image, positions, padding_mode="border", align_corners=False)
