"""Which shape a picture shows, named by templates alone: the network has no say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from scipy import fft, ndimage

from training.lesions.shapes import GRID, REACH, SHAPES, shape_mask

SIZES = (0.8, 0.9, 1.0, 1.12, 1.25)
"""Magnifications of the templates."""
LEAST_ENERGY = 0.5
"""A place counts if the change there varies at least half as much (variance) as where it varies most."""
FWHM = 1.5
"""Full width at half maximum, voxels, of the smoothing of pictures and templates: 3 mm on the lesions' grid.

What networks add to a shape at the scale of single voxels, such as stripes, is no other shape.
"""
TILT = 15.0
"""Degrees that cubes, crosses and tori are tilted by, about each axis: pictures are drawn under rotations."""
_TURNS = {"torus": ((0, 0), (90, 0), (0, 90))}


@dataclass(frozen=True)
class Match:
    """The template that fits a picture best.

    Attributes
    ----------
    shape : str
        One of `training.lesions.shapes.SHAPES`.
    ncc : float
        Normalized cross-correlation with it, 0 to 1: the sign is `contrast`.
    contrast : int
        1 where the picture is brighter than its ground in the shape, -1 where it is darker.
    size : float
        Magnification of the template that fits best; 1 is the size that was planted.
    center : tuple of int
        Voxel of the picture that its middle lies on.
    by_shape : dict of float
        The best correlation with each shape.
    """

    shape: str
    ncc: float
    contrast: int
    size: float
    center: tuple[int, ...]
    by_shape: dict[str, float]


@dataclass(frozen=True)
class _Template:
    shape: str
    size: float
    values: np.ndarray  # zero mean and unit length inside the ball, 0 outside


def match(picture: np.ndarray, start: np.ndarray | float, fwhm: float = FWHM) -> Match:
    """Name the shape in a picture.

    Every template is laid on every voxel, and correlated with the picture inside a ball that holds any of
    the shapes (normalized cross-correlation, Lewis 1995): neither brightness nor contrast counts.

    Parameters
    ----------
    picture : numpy.ndarray
        Model units, any three-dimensional shape of at least `GRID` voxels along each axis.
    start : numpy.ndarray or float
        What it began with: a shape is looked for where the picture departs from it most.
    fwhm : float
        Smoothing of picture, start and templates, voxels; 0 for none.

    Returns
    -------
    Match
        The best fit of all templates, turns, tilts, sizes and places.
    """
    ball = _ball().astype(np.float64)
    smoothed = _smooth(picture, fwhm)
    spectrum, variance = _variance(smoothed, ball)
    _, departure = _variance(smoothed - _smooth(np.broadcast_to(start, picture.shape), fwhm), ball)
    # Correlation knows no contrast: faint ground looks like a sphere wherever it is a little bent.
    length = np.where(departure >= LEAST_ENERGY * departure.max(), np.sqrt(variance.clip(1e-9)), np.inf)
    found = []
    for template in _templates(fwhm):
        scores = _correlate(spectrum, template.values, picture.shape) / length
        place = np.unravel_index(np.abs(scores).argmax(), scores.shape)
        found.append((float(scores[place]), template, tuple(int(at) for at in place)))
    score, best, center = max(found, key=lambda entry: abs(entry[0]))
    by_shape = {name: max(abs(score) for score, kind, _ in found if kind.shape == name) for name in SHAPES}
    return Match(best.shape, abs(score), 1 if score > 0 else -1, best.size, center, by_shape)


def _variance(volume: np.ndarray, ball: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the padded volume's spectrum, and the squares about the ball's mean, summed, at each voxel."""
    padded = np.pad(volume.astype(np.float64), GRID // 2, mode="edge")
    spectrum = fft.rfftn(padded, _room(volume.shape))
    total = _correlate(spectrum, ball, volume.shape)
    square = _correlate(fft.rfftn(padded**2, _room(volume.shape)), ball, volume.shape)
    return spectrum, np.maximum(square - total**2 / ball.sum(), 0)


def _room(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(fft.next_fast_len(length + GRID, real=True) for length in shape)


def _correlate(spectrum: np.ndarray, kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Correlate a padded volume, by its spectrum, with a kernel centred on each of its voxels."""
    room = _room(shape)
    product_ = spectrum * np.conj(fft.rfftn(kernel, room))
    return np.asarray(fft.irfftn(product_, room)[tuple(slice(0, length) for length in shape)])


def _smooth(volume: np.ndarray, fwhm: float) -> np.ndarray:
    deviation = fwhm / (8 * np.log(2)) ** 0.5
    return np.asarray(ndimage.gaussian_filter(volume.astype(np.float64), deviation, mode="nearest"))


@cache
def _ball() -> np.ndarray:
    axis = np.arange(GRID) - GRID // 2
    return np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij")), axis=0) <= REACH


@cache
def _templates(fwhm: float) -> tuple[_Template, ...]:
    ball, made = _ball(), []
    for name in SHAPES:
        mask = _smooth(shape_mask(name), fwhm)
        for size, turn in product(SIZES, _turns(name)):
            matrix = turn / size
            offset = GRID // 2 - matrix @ np.full(3, GRID // 2)
            moved = np.where(ball, ndimage.affine_transform(mask, matrix, offset, order=1), 0)
            moved = np.where(ball, moved - moved[ball].mean(), 0)
            made.append(_Template(name, size, moved / np.linalg.norm(moved)))
    return tuple(made)


def _turns(name: str) -> list[np.ndarray]:
    """Rotation matrices that a shape is tried in: spheres and shells look the same in all."""
    if name in ("sphere", "shell"):
        return [np.eye(3)]
    tilts = [np.eye(3), *(_rotation(axis, sign * TILT) for axis in range(3) for sign in (-1, 1))]
    places = [_rotation(0, first) @ _rotation(1, second) for first, second in _TURNS.get(name, ((0, 0),))]
    return [tilt @ place for tilt in tilts for place in places]


def _rotation(axis: int, degrees: float) -> np.ndarray:
    turn = np.eye(3)
    a, b = (i for i in range(3) if i != axis)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[a, a], turn[a, b], turn[b, a], turn[b, b] = cosine, -sine, sine, cosine
    return turn
