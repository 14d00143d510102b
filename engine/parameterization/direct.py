"""Free numbers for every voxel, frequency or level: images that can become any other."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from engine.fields import number
from engine.grid import Grid
from engine.parameterization.base import FreeImage, Parameterization, Stage

_SMALLEST_LEVEL = 4
_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class _VoxelLatent(FreeImage):
    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.free = [(stage.noise(1, *stage.grid.shape) * stage.start.deviation).requires_grad_()]

    def unbounded(self) -> Tensor:
        return self.free[0]

    @torch.no_grad()
    def assign_(self, image: Tensor) -> None:
        self.free[0].copy_(image)


@dataclass(frozen=True)
class Voxels(Parameterization):
    """One free number a voxel."""

    name: ClassVar[str] = "voxels"
    itemwise: ClassVar[bool] = True
    free_image: ClassVar[bool] = True

    def latent(self, stage: Stage) -> FreeImage:
        """Return Gaussian noise of the start's deviation."""
        return _VoxelLatent(stage)


class _FourierLatent(FreeImage):
    def __init__(self, stage: Stage, scale: Tensor) -> None:
        super().__init__(stage)
        # A coefficient's two parts share its variance.
        noise = stage.noise(1, *scale.shape, 2) * (stage.start.deviation / math.sqrt(2))
        self.scale = scale.to(noise)
        self.free = [noise.requires_grad_()]

    def unbounded(self) -> Tensor:
        return self.grid.from_spectrum(torch.view_as_complex(self.free[0] * self.scale[..., None]))

    @torch.no_grad()
    def assign_(self, image: Tensor) -> None:
        self.free[0].copy_(torch.view_as_real(self.grid.to_spectrum(image)) / self.scale[..., None])


@dataclass(frozen=True)
class Fourier(Parameterization):
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
    itemwise: ClassVar[bool] = True
    free_image: ClassVar[bool] = True

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

    def latent(self, stage: Stage) -> FreeImage:
        """Return noise whose image has about the start's deviation."""
        return _FourierLatent(stage, self.scale(stage.grid))


class _PyramidLatent(FreeImage):
    def __init__(self, stage: Stage, shapes: list[tuple[int, ...]]) -> None:
        super().__init__(stage)
        share = stage.start.deviation / math.sqrt(len(shapes))
        self.free = [(stage.noise(1, *shape) * share).requires_grad_() for shape in shapes]

    def unbounded(self) -> Tensor:
        finest, *coarser = self.free
        mode = _INTERPOLATION[self.grid.ndim]
        return finest + sum(
            functional.interpolate(level, size=self.grid.shape, mode=mode, align_corners=False)
            for level in coarser
        )

    @torch.no_grad()
    def assign_(self, image: Tensor) -> None:
        # The finest level can say everything that the coarser ones leave over.
        self.free[0].add_(image - self.unbounded())


@dataclass(frozen=True)
class LaplacianPyramid(Parameterization):
    """The sum of ever coarser grids, interpolated linearly (Burt, Adelson 1983; Lucid).

    A step moves every level as much, so that large structures, which all levels
    can draw, move first.

    Parameters
    ----------
    levels : int
        Number of grids, each half as fine as the one before; none is made smaller than 4 voxels.
    """

    levels: int = number(4, minimum=1, maximum=8, doc="Grids, each half as fine as the one before.")
    name: ClassVar[str] = "laplacian_pyramid"
    free_image: ClassVar[bool] = True

    def shapes(self, grid: Grid) -> list[tuple[int, ...]]:
        """Return the shape of every level on a grid, the finest first."""
        shapes = [grid.shape]
        while len(shapes) < self.levels and min(shapes[-1]) >= 2 * _SMALLEST_LEVEL:
            shapes.append(tuple(math.ceil(size / 2) for size in shapes[-1]))
        return shapes

    def latent(self, stage: Stage) -> FreeImage:
        """Return noise whose levels share the start's variance."""
        return _PyramidLatent(stage, self.shapes(stage.grid))
