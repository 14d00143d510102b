"""A planted deformation: one region grows, its surroundings give way, and the rest stays where it is.

The map is radial about the region's centre: a point at distance ``r`` goes to distance ``g(r) = r (1 + s
w(r))``, where ``w`` is 1 within the region's radius and falls to 0 at the reach, smoothly (Perlin's quintic,
twice differentiable). ``g`` rises everywhere, so the map is a diffeomorphism; its inverse is found on the
line, and its Jacobian is ``g'(r) (g(r) / r)^2`` in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

LINE = 2048
"""Points on which the inverse of the radial map is tabulated."""


@dataclass(frozen=True)
class Region:
    """Where something grows.

    Attributes
    ----------
    center : tuple of float
        World coordinates in mm (x to the right, y to the front, z up). By default between thalamus, putamen
        and caudate nucleus of the left hemisphere in MNI152.
    radius : float
        Of the sphere that grows, mm.
    reach : float
        Distance from the centre beyond which nothing moves, mm.
    """

    center: tuple[float, float, float] = (-20.0, -8.0, 8.0)
    radius: float = 22.0
    reach: float = 40.0

    def __post_init__(self) -> None:
        if not 0 < self.radius < self.reach:
            raise ValueError(f"radius {self.radius} must lie above 0 and below reach {self.reach}")

    def weight(self, distance: np.ndarray) -> np.ndarray:
        """Return ``w``: 1 within the radius, 0 from the reach on."""
        t = self._fall(distance)
        return np.asarray(1 - t**3 * (10 - 15 * t + 6 * t**2))

    def moved(self, distance: np.ndarray, growth: float) -> np.ndarray:
        """Return ``g``, the distance in mm at which tissue ends up.

        Parameters
        ----------
        distance : numpy.ndarray
            Where it starts, mm.
        growth : float
            Relative change of the region's volume, e.g. 0.1; below 0 it shrinks.
        """
        return np.asarray(distance * (1 + _strain(growth) * self.weight(distance)))

    def origin(self, distance: np.ndarray, growth: float) -> np.ndarray:
        """Return the inverse of `moved`: where tissue at a distance came from, mm."""
        line = np.linspace(0, self.reach, LINE)
        found = np.interp(distance, self.moved(line, growth), line)
        return np.where(distance < self.reach, found, distance)

    def jacobian(self, distance: np.ndarray, growth: float) -> np.ndarray:
        """Return how much tissue that starts at a distance grows: 1 where nothing changes.

        Raises
        ------
        ValueError
            If the growth is so strong that tissue would fold; a wider reach lets it be stronger.
        """
        strain, t = _strain(growth), self._fall(distance)
        slope = -30 * t**2 * (1 - t) ** 2 / (self.reach - self.radius)
        stretch = 1 + strain * self.weight(distance)
        along = stretch + strain * distance * slope
        if (along <= 0).any():
            raise ValueError(f"growth {growth} folds tissue between {self.radius} and {self.reach} mm")
        return np.asarray(along * stretch**2)

    def _fall(self, distance: np.ndarray) -> np.ndarray:
        return np.clip((distance - self.radius) / (self.reach - self.radius), 0, 1)


def _strain(growth: float) -> float:
    return float((1 + growth) ** (1 / 3) - 1)


def planted_log_jacobian(
    region: Region, growth: float, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Return the truth of a plant: by how much tissue at each voxel grows.

    Parameters
    ----------
    region : Region
        Where.
    growth : float
        Relative change of its volume.
    shape : tuple of int
        Of the grid, three voxel counts.
    affine : numpy.ndarray
        Voxel to world in mm, shape `(4, 4)`.

    Returns
    -------
    numpy.ndarray
        Natural logarithm of the Jacobian determinant at the tissue's place before the growth, float32,
        shape `shape`: above 0 where tissue grows, below 0 where it gives way.
    """
    places = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ places + affine[:3, 3:]
    distance = np.linalg.norm(world - np.array(region.center)[:, None], axis=0)
    return np.log(region.jacobian(distance, growth)).astype(np.float32).reshape(shape)


def plant(
    volume: np.ndarray, affine: np.ndarray, region: Region, growth: float, nudge: np.ndarray | None = None
) -> np.ndarray:
    """Let a region of a brain grow.

    Parameters
    ----------
    volume : numpy.ndarray
        float32, shape `(X, Y, Z)`; axes along those of the world, in any direction.
    affine : numpy.ndarray
        Voxel to world in mm, shape `(4, 4)`, without rotation.
    region : Region
        Where.
    growth : float
        Relative change of its volume; 0 resamples the brain without growth.
    nudge : numpy.ndarray or None
        Shift of the region along each axis, mm, falling to 0 at the reach like the growth. It is added after
        the growth and changes no volume within the radius. Drawn at random for every image, it keeps the blur
        of the interpolation from telling anything of the growth.

    Returns
    -------
    numpy.ndarray
        float32 copy, interpolated linearly within the reach and untouched beyond.
    """
    steps = np.diag(affine)[:3]
    if not np.allclose(affine[:3, :3], np.diag(steps)):
        raise ValueError("affine holds a rotation; resample to the axes of the template first")
    middle = (np.array(region.center) - affine[:3, 3]) / steps
    span = region.reach / np.abs(steps)
    low = [max(0, int(np.ceil(m - s))) for m, s in zip(middle, span, strict=True)]
    high = [min(n, int(np.floor(m + s)) + 1) for n, m, s in zip(volume.shape, middle, span, strict=True)]
    grown = np.array(volume, np.float32)
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return grown
    lines = [(np.arange(a, b) - m) * s for a, b, m, s in zip(low, high, middle, steps, strict=True)]
    offset = np.stack(np.meshgrid(*lines, indexing="ij"))
    if nudge is not None:
        offset -= np.asarray(nudge).reshape(3, 1, 1, 1) * region.weight(np.linalg.norm(offset, axis=0))
    distance = np.linalg.norm(offset, axis=0).clip(1e-6)
    offset *= region.origin(distance, growth) / distance
    places = offset / steps.reshape(3, 1, 1, 1) + middle.reshape(3, 1, 1, 1)
    grown[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = _read(grown, places, low, high)
    return grown


def _read(volume: np.ndarray, places: np.ndarray, low: list[int], high: list[int]) -> np.ndarray:
    """Interpolate a volume linearly at voxel coordinates, `(3, *box)`, that lie near a box."""
    margin = 4
    starts = [max(0, a - margin) for a in low]
    block = volume[tuple(slice(a, b + margin) for a, b in zip(starts, high, strict=True))]
    scaled = [
        (2 * (line - start) + 1) / length - 1
        for line, start, length in zip(places, starts, block.shape, strict=True)
    ]
    # torch counts the axes of a position from the last one.
    grid = torch.from_numpy(np.stack(scaled[::-1], axis=-1).astype(np.float32))
    source = torch.from_numpy(block.copy())[None, None]
    read = functional.grid_sample(source, grid[None], padding_mode="border", align_corners=False)
    return np.asarray(read[0, 0].numpy())
