"""How a volume is held while it is optimized.

A parameterization makes a `Latent`: free numbers and the way they become an
unbounded image. The optimizer steps on the free numbers.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.fields import Checked, number
from engine.grid import Grid


class Latent(ABC):
    """Free numbers that stand for an image of unbounded values.

    Attributes
    ----------
    free : Tensor
        The leaf that the optimizer moves.
    """

    free: Tensor

    @abstractmethod
    def image(self) -> Tensor:
        """Return the unbounded image, `(batch, 1, *shape)`."""

    @abstractmethod
    def filter_(self, transfer: Tensor) -> None:
        """Multiply the image's spectrum by real factors, in place.

        Parameters
        ----------
        transfer : Tensor
            Factors in the shape of the grid's half spectrum.
        """


class _VoxelLatent(Latent):
    def __init__(self, grid: Grid, start: Tensor) -> None:
        self.grid = grid
        self.free = start.clone().requires_grad_()

    def image(self) -> Tensor:
        return self.free

    @torch.no_grad()
    def filter_(self, transfer: Tensor) -> None:
        spectrum = self.grid.to_spectrum(self.free) * transfer.to(self.free)
        self.free.copy_(self.grid.from_spectrum(spectrum))


class _FourierLatent(Latent):
    def __init__(self, grid: Grid, scale: Tensor, start: Tensor) -> None:
        self.grid = grid
        self.scale = scale.to(start)
        self.free = start.clone().requires_grad_()

    def image(self) -> Tensor:
        return self.grid.from_spectrum(torch.view_as_complex(self.free) * self.scale)

    @torch.no_grad()
    def filter_(self, transfer: Tensor) -> None:
        self.free.mul_(transfer.to(self.free).unsqueeze(-1))


@dataclass(frozen=True)
class Voxels(Checked):
    """One free number a voxel."""

    name: ClassVar[str] = "voxels"

    def latent(
        self, grid: Grid, deviation: float, generator: torch.Generator, device: torch.device
    ) -> Latent:
        """Return Gaussian noise of the given standard deviation on the grid."""
        noise = torch.randn((1, 1, *grid.shape), generator=generator) * deviation
        return _VoxelLatent(grid, noise.to(device))


@dataclass(frozen=True)
class Fourier(Checked):
    """Fourier coefficients, each scaled by 1 / frequency^decay.

    The scaling is a preconditioner (Olah et al. 2017): it leaves the optima
    where they are and makes large structures move first. Equal energy in every
    octave needs a decay of half the number of dimensions, for the number of
    coefficients in an octave grows as frequency^ndim: 1.0 for pictures, 1.5 for
    volumes.

    Parameters
    ----------
    decay : float
        The power of the fall.
    """

    decay: float = number(1.5, minimum=0, maximum=4, doc="Power with which the spectrum falls.")
    name: ClassVar[str] = "fourier"

    def scale(self, grid: Grid) -> Tensor:
        """Return the factor of every coefficient, with a root mean square of 1.

        With that norm a step of the optimizer changes the image about as much
        as the same step does on voxels, whatever the decay and the rank (up to
        the square root of 2, for both parts of a coefficient move).
        """
        lowest = 1 / max(n * size for n, size in zip(grid.fourier_shape, grid.voxel_size, strict=True))
        scale = grid.frequencies.clamp(min=lowest) ** -self.decay
        # Of each pair of conjugate coefficients the half spectrum holds one; it counts twice.
        pairs = torch.full_like(scale, 2.0)
        pairs[..., 0] = 1
        if grid.fourier_shape[-1] % 2 == 0:
            pairs[..., -1] = 1
        mean_square = (pairs * scale**2).sum() / math.prod(grid.fourier_shape)
        return scale / mean_square.sqrt()

    def latent(
        self, grid: Grid, deviation: float, generator: torch.Generator, device: torch.device
    ) -> Latent:
        """Return noise whose image has about the given standard deviation."""
        scale = self.scale(grid)
        # A coefficient's two parts share its variance.
        noise = torch.randn((1, 1, *scale.shape, 2), generator=generator) * (deviation / math.sqrt(2))
        return _FourierLatent(grid, scale, noise.to(device))


Parameterization = Voxels | Fourier
PARAMETERIZATIONS = {kind.name: kind for kind in (Fourier, Voxels)}
