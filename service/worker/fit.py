"""Lines through what was measured on small canvases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Lay a line through points so that the relative errors are small.

    Parameters
    ----------
    points : sequence of (x, y)
        Above 0; from one on.

    Returns
    -------
    tuple of float
        Its height at 0 and its slope, neither below 0. Through one point, or where both could not be, it
        goes through the origin.
    """
    x, y = np.array(points, dtype=float).T
    if len(points) > 1:
        weighted = np.stack([1 / y, x / y], axis=1)
        (height, slope), *_ = np.linalg.lstsq(weighted, np.ones(len(x)), rcond=None)
        if height >= 0 and slope >= 0:
            return float(height), float(slope)
        if slope < 0:
            return float(y.mean()), 0.0
    return 0.0, float((x / y).sum() / (x / y).dot(x / y))


@dataclass(frozen=True)
class Sample:
    """What a number of volumes cost on a canvas.

    Attributes
    ----------
    voxels : int
        Of the canvas.
    step, look, reading : float
        Seconds of a step, of a look at the volumes, of reading a transformed copy of one.
    step_bytes, left_bytes, reading_bytes : int
        Most bytes at once of the steps, bytes that they keep, and most bytes to read a copy.
    """

    voxels: int
    step: float
    look: float
    reading: float
    step_bytes: int
    left_bytes: int
    reading_bytes: int


class Lines:
    """Lines in the number of voxels through samples.

    Parameters
    ----------
    samples : sequence of Sample
        From one on, by size.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._lines = {}
        for name in Sample.__dataclass_fields__:
            chosen = samples[-2:] if name.endswith("bytes") else samples
            points = [(each.voxels, max(getattr(each, name), 1e-6)) for each in chosen]
            self._lines[name] = line(points)

    def at(self, name: str, voxels: int) -> float:
        """Return a figure of `Sample` on a canvas of so many voxels."""
        height, slope = self._lines[name]
        return height + slope * voxels


@dataclass(frozen=True)
class Fit:
    """What one volume costs, and what two do if there are more.

    Attributes
    ----------
    one, two : Lines
        Of one volume and of two.
    """

    one: Lines
    two: Lines

    def at(self, name: str, voxels: int, volumes: int) -> float:
        """Return a figure of `Sample` for so many volumes: every further one costs what the second does."""
        first, second = (lines.at(name, voxels) for lines in (self.one, self.two))
        return first + (volumes - 1) * max(second - first, 0.0)
