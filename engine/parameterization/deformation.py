"""A smooth, invertible warp of the start."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from engine.fields import InvalidField, number
from engine.grid import Grid
from engine.parameterization.base import Latent, Parameterization, Stage

_FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))
# Largest slope of the velocity, mm per mm: no length changes by more than about a factor of e.
_STEEPEST = 1.0
# The flow is made of 2^6 steps, the slope of each at most 1/64: far from folding.
_SQUARINGS = 6


class DeformationLatent(Latent):
    """A velocity with which the start's tissue flows.

    Parameters
    ----------
    stage : Stage
        What it is made on.
    smoothness : float
        FWHM of the Gaussian that smooths the velocity, mm.
    reach : float
        Bound of the velocity, mm.

    Attributes
    ----------
    free : list of Tensor, one of (batch, ndim, *shape)
        The velocity before bound and smoothing, in units of the reach.
    """

    def __init__(self, stage: Stage, smoothness: float, reach: float) -> None:
        self.grid, self.scene, self.reach = stage.grid, stage.scene, reach
        if stage.scene.begin.ndim == 0:
            rule = "an image, for a constant looks the same however it is warped: reference_brain or subject"
            raise InvalidField("start", stage.start.name, rule)
        pairs = zip(self.grid.shape, self.grid.voxel_size, strict=True)
        self.filters = [_gaussian(size, step, smoothness).to(stage.device) for size, step in pairs]
        self.window = self._eased_window()
        noise = stage.noise(self.grid.ndim, *self.grid.shape)
        self.free = [(stage.start.deviation / reach * noise).requires_grad_()]

    def velocity(self) -> Tensor:
        """Return the velocity, `(batch, ndim, *shape)`, mm along each axis in unit time."""
        velocity = self._smooth(self.reach * torch.tanh(self.free[0]))
        if self.window is not None:
            velocity = velocity * self.window.to(velocity)
        return _limited(velocity, self.grid)

    def volume(self) -> Tensor:
        """Return the warped start, `(batch, 1, *shape)`, model units."""
        velocity = self.velocity()
        begin = self.scene.begin.to(velocity).expand(len(velocity), -1, *self.grid.shape)
        # What is found at a voxel comes from where the flow, run backwards, leads.
        warped = sampled(begin, flow(-velocity, self.grid), self.grid)
        if self.scene.window is None:
            return warped
        # No blending: two brains, one of them moved, would show through each other. Nothing moves where
        # the window is 0, and there the surroundings are the start; the rounding goes as well.
        return torch.where(self.scene.window > 0, warped, self.scene.surroundings.to(warped))

    def extras(self) -> Mapping[str, Tensor]:
        """Return how much the tissue at each voxel of the start has grown, `(batch, *shape)`."""
        return {"jacobian": jacobian(flow(self.velocity(), self.grid), self.grid)}

    def _smooth(self, field: Tensor) -> Tensor:
        for axis, matrix in zip(self.grid.axes, self.filters, strict=True):
            field = (field.movedim(axis, -1) @ matrix.to(field).T).movedim(-1, axis)
        return field

    def _eased_window(self) -> Tensor | None:
        """Return a share of the velocity that is 0 where the window is and climbs slowly from there.

        A mask ends between two voxels; a velocity that did so would tear.
        """
        if self.scene.window is None:
            return None
        return self.scene.window * (2 * self._smooth(self.scene.window) - 1).clamp(min=0)


@dataclass(frozen=True)
class Deformation(Parameterization):
    """A smooth, invertible warp of the start: what must grow or shrink.

    Tissue flows for unit time along a stationary velocity, by scaling and
    squaring (Arsigny et al. 2006; Ashburner 2007). No intensity is made up: the
    picture says what a unit wants of size, shape and place.

    The result's `jacobian` is the determinant of the map that carries the start's
    tissue to where the result shows it, at the tissue's place in the start: above
    1 it has grown, below 1 it has shrunk, as in tensor-based morphometry
    (Ashburner, Friston 2000). It is positive everywhere. Where the velocity would
    change by more than 1 mm within 1 mm, all of it is slowed down.

    Parameters
    ----------
    smoothness_mm : float
        FWHM of the Gaussian that smooths the velocity, mm.
    reach_mm : float
        Bound of the velocity, mm: about how far tissue moves at most.
    """

    smoothness_mm: float = number(
        16.0, above=0, maximum=200, unit="mm", doc="FWHM of the Gaussian that smooths the velocity."
    )
    reach_mm: float = number(8.0, above=0, maximum=100, unit="mm", doc="Bound of the velocity.")
    name: ClassVar[str] = "deformation"
    refused_starts: ClassVar[tuple[str, ...]] = ("noise", "zeros")

    def latent(self, stage: Stage) -> DeformationLatent:
        """Return a velocity that is noise of the start's deviation, mm, before the smoothing.

        Raises
        ------
        InvalidField
            The start is a constant, which no warp changes.
        """
        return DeformationLatent(stage, self.smoothness_mm, self.reach_mm)


def flow(velocity: Tensor, grid: Grid) -> Tensor:
    """Follow a stationary velocity for unit time: its exponential, by scaling and squaring.

    Parameters
    ----------
    velocity : Tensor, (batch, ndim, *shape)
        Millimetres along each axis in unit time; beyond the grid as at its border.
    grid : Grid
        Where it lives.

    Returns
    -------
    Tensor, (batch, ndim, *shape)
        How far what starts at each voxel gets, mm along each axis.
    """
    moved = velocity / 2**_SQUARINGS
    for _ in range(_SQUARINGS):
        moved = moved + sampled(moved, moved, grid)
    return moved


def sampled(image: Tensor, displacement: Tensor, grid: Grid) -> Tensor:
    """Read images away from the voxels, linearly, with their borders repeated.

    Parameters
    ----------
    image : Tensor, (batch, channel, *shape)
        The images.
    displacement : Tensor, (batch, ndim, *shape)
        How far from each voxel it is read, mm along each axis.
    grid : Grid
        Where both live.

    Returns
    -------
    Tensor, (batch, channel, *shape)
        What is there.
    """
    positions = []
    for axis, (size, step) in enumerate(zip(grid.shape, grid.voxel_size, strict=True)):
        line = (2 * torch.arange(size, dtype=torch.float64) + 1 - size) / size
        line = line.to(displacement).reshape(-1, *(1,) * (grid.ndim - 1 - axis))
        positions.append(line + displacement[:, axis] * (2 / (size * step)))
    if grid.ndim == 1:
        # torch samples pictures and volumes only: a line is a picture of one row.
        place = torch.stack([positions[0], torch.zeros_like(positions[0])], -1).unsqueeze(1)
        return _read(image.unsqueeze(-2), place).squeeze(-2)
    # torch counts the axes of a position from the last one.
    return _read(image, torch.stack(positions[::-1], -1))


def jacobian(displacement: Tensor, grid: Grid) -> Tensor:
    """Return the change of volume by a displacement, `(batch, *shape)`.

    The derivatives are central differences, one-sided at the faces. Along an axis
    of a single voxel nothing changes.

    Parameters
    ----------
    displacement : Tensor, (batch, ndim, *shape)
        Millimetres along each axis.
    grid : Grid
        Where it lives.
    """
    columns = []
    for axis, size, step in zip(grid.axes, grid.shape, grid.voxel_size, strict=True):
        if size > 1:
            columns.append(torch.gradient(displacement, spacing=step, dim=axis)[0])
        else:
            columns.append(torch.zeros_like(displacement))
    matrix = torch.stack(columns, -1).movedim(1, -2)
    return torch.linalg.det(matrix + torch.eye(grid.ndim).to(matrix))


def _read(image: Tensor, positions: Tensor) -> Tensor:
    return functional.grid_sample(image, positions, padding_mode="border", align_corners=False)


def _gaussian(size: int, step: float, fwhm: float) -> Tensor:
    """Return the matrix, `(size, size)`, that smooths a line and leaves a constant one as it is.

    Unlike the Fourier transform's, it does not tie opposite faces of the grid together.
    """
    place = torch.arange(size, dtype=torch.float64) * (step * _FWHM_PER_SIGMA / fwhm)
    weights = torch.exp(-((place[:, None] - place) ** 2) / 2)
    return weights / weights.sum(1, keepdim=True)


def _limited(velocity: Tensor, grid: Grid) -> Tensor:
    """Slow down each item whose velocity, somewhere, changes too steeply to be followed on the grid."""
    slope = torch.zeros_like(velocity)
    for axis, step in zip(grid.axes, grid.voxel_size, strict=True):
        last = velocity.narrow(axis, -1, 1)
        slope = slope + velocity.diff(dim=axis, append=last).abs() / step
    steepest = slope.flatten(1).amax(1).clamp(min=_STEEPEST)
    return velocity * (_STEEPEST / steepest).reshape(-1, *(1,) * (velocity.ndim - 1))
