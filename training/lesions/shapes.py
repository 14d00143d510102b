"""Artificial lesions that differ in shape and in nothing else.

A lesion is a soft mask on a small cubic grid. Every shape defines a field of depth (positive inside, in
voxels), its voxels are ranked by that field, and one common list of mask values (`PROFILE`) is dealt out by
rank. All lesions, the distractors of class "none" included, therefore hold exactly the same multiset of
mask values: volume, energy and histogram cannot tell them apart. The idea of matching area and energy
exactly is that of Oliveira et al. 2024 (Front. AI 7:1330919); matching by rank is stricter and needs no
rejection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

GRID = 17
"""Edge length in voxels of the cubic grid that a lesion is drawn on."""
MASS = 260
"""Sum of the mask values of every lesion, in voxels."""
FULL, SHOULDER = 60, 400
"""How many voxels have mask value 1, and how many fall from there to 0."""
REACH = 7.5
"""No lesion leaves the ball of this radius (voxels) around its nominal centre."""
TARGET = (1.0, 1.1)
"""Range of the intensity (model units) that a lesion pulls the tissue towards; uniform in every class.

It begins where bright white matter ends: targets from 0.9 left lesions there without contrast, and half of
those were missed by a network that recognized 99 % of all others.
"""

SHAPES = ("sphere", "cube", "cross", "shell", "torus")
NONE = "none"
CLASSES = (*SHAPES, NONE)
UNTOUCHED = 0.5
"""Share of class "none" that carries no lesion at all; the rest carries a distractor."""

_SHOULDER_PHASE = (np.arange(SHOULDER) + 0.5) / SHOULDER * np.pi
PROFILE: np.ndarray = np.concatenate([np.ones(FULL), 0.5 + 0.5 * np.cos(_SHOULDER_PHASE)]).astype(np.float32)
"""The mask values of every lesion, in falling order, float32, shape `(FULL + SHOULDER,)`."""
PROFILE.setflags(write=False)

Field = Callable[[np.ndarray], np.ndarray]

# Nominal sizes in voxels. Proportions are written here; the rest follows from the volume MASS.
_SPHERE_RADIUS = (3 * MASS / (4 * np.pi)) ** (1 / 3)
_CUBE_HALF = MASS ** (1 / 3) / 2
_CROSS_HALF_LENGTH = 5.6
_SHELL_OUTER = 4.8
_SHELL_INNER = (_SHELL_OUTER**3 - 3 * MASS / (4 * np.pi)) ** (1 / 3)
_TORUS_RING = 4.2
_TORUS_TUBE = (MASS / (2 * np.pi**2 * _TORUS_RING)) ** 0.5


def _cross_half_width() -> float:
    """Half width w of three crossing bars of half length L: 3 (2w)^2 (2L) - 2 (2w)^3 = MASS."""
    roots = np.roots([-16.0, 24.0 * _CROSS_HALF_LENGTH, 0.0, -float(MASS)])
    return float(min(root.real for root in roots if abs(root.imag) < 1e-9 and root.real > 0))


_CROSS_HALF_WIDTH = _cross_half_width()


def _sphere(position: np.ndarray) -> np.ndarray:
    return _SPHERE_RADIUS - np.linalg.norm(position, axis=0)


def _cube(position: np.ndarray) -> np.ndarray:
    return _CUBE_HALF - np.abs(position).max(axis=0)


def _cross(position: np.ndarray) -> np.ndarray:
    room = np.abs(position)
    bars = []
    for axis in range(3):
        half = np.full((3, 1, 1, 1), _CROSS_HALF_WIDTH)
        half[axis] = _CROSS_HALF_LENGTH
        bars.append((half - room).min(axis=0))
    return np.max(bars, axis=0)


def _shell(position: np.ndarray) -> np.ndarray:
    radius = np.linalg.norm(position, axis=0)
    return np.minimum(_SHELL_OUTER - radius, radius - _SHELL_INNER)


def _torus(position: np.ndarray) -> np.ndarray:
    ring = np.hypot(position[0], position[1]) - _TORUS_RING
    return _TORUS_TUBE - np.hypot(ring, position[2])


_DEPTH: dict[str, Field] = {
    "sphere": _sphere,
    "cube": _cube,
    "cross": _cross,
    "shell": _shell,
    "torus": _torus,
}


@dataclass(frozen=True)
class Lesion:
    """A soft mask and where it is to be painted.

    Attributes
    ----------
    mask : numpy.ndarray
        float32 in [0, 1], shape `(GRID, GRID, GRID)`, exactly 0 on the grid's border.
    corner : tuple of int
        Voxel of the volume that the mask's first voxel falls on.
    target : float
        Intensity in model units that the mask pulls towards.
    """

    mask: np.ndarray
    corner: tuple[int, int, int]
    target: float


def positions(offset: np.ndarray) -> np.ndarray:
    """Coordinates of the grid's voxels relative to a centre `offset` voxels beside the grid's middle.

    Returns
    -------
    numpy.ndarray
        float64, shape `(3, GRID, GRID, GRID)`.
    """
    axis = np.arange(GRID, dtype=np.float64) - GRID // 2
    return np.stack(np.meshgrid(*(axis - shift for shift in offset), indexing="ij"))


def deal(depth: np.ndarray) -> np.ndarray:
    """Give the common mask values (`PROFILE`) to the deepest voxels, the largest first.

    Parameters
    ----------
    depth : numpy.ndarray
        Any numbers, larger further inside; only their order counts.

    Returns
    -------
    numpy.ndarray
        float32 in [0, 1], the shape of `depth`.
    """
    mask = np.zeros(depth.size, np.float32)
    order = np.argsort(-depth, axis=None, kind="stable")
    mask[order[: PROFILE.size]] = PROFILE
    return mask.reshape(depth.shape)


def untied(depth: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Order voxels of one depth by their radius, outermost first."""
    # Whole faces of cubes and bars lie at one depth. A pinch of radius orders them, so that ties do not
    # follow the memory order, which would tilt the shape; outermost first keeps the corners of cubes.
    return np.asarray(depth + 0.02 * np.linalg.norm(position, axis=0))


def _depth(shape: str, position: np.ndarray) -> np.ndarray:
    return untied(_DEPTH[shape](position), position)


def shape_mask(shape: str, offset: np.ndarray | None = None) -> np.ndarray:
    """Rasterize one shape.

    Parameters
    ----------
    shape : str
        One of `SHAPES`. Axes of cube and cross follow the grid; the torus lies in the (i, j) plane.
    offset : numpy.ndarray, optional
        Centre in voxels relative to the grid's middle, each component in [-0.5, 0.5].

    Returns
    -------
    numpy.ndarray
        float32 in [0, 1], shape `(GRID, GRID, GRID)`.

    Raises
    ------
    ValueError
        If the shape is unknown.
    """
    if shape not in _DEPTH:
        raise ValueError(f"shape {shape!r} is unknown; use one of {', '.join(SHAPES)}")
    return deal(_depth(shape, positions(np.zeros(3) if offset is None else offset)))


def _template_spectra() -> np.ndarray:
    templates = np.stack([shape_mask(shape) for shape in SHAPES])
    return np.conj(np.fft.rfftn(templates, axes=(1, 2, 3)))


_SPECTRA = _template_spectra()
_ENERGY = float((PROFILE.astype(np.float64) ** 2).sum())


def resemblance(mask: np.ndarray) -> float:
    """Return the largest normalized cross-correlation of a mask with any shape at any whole-voxel shift."""
    spectrum = np.fft.rfftn(mask)
    scores = np.fft.irfftn(spectrum * _SPECTRA, s=mask.shape, axes=(1, 2, 3))
    return float(scores.max()) / _ENERGY


def _blob_depth(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """Smooth noise of random grain, held inside the ball that all lesions share."""
    noise = ndimage.gaussian_filter(rng.standard_normal((GRID,) * 3), rng.uniform(1.0, 1.8))
    radius = np.linalg.norm(position, axis=0)
    depth = noise / noise.std() - 2.0 * np.maximum(radius - rng.uniform(4.0, 5.5), 0.0)
    return np.where(radius <= REACH, depth, -np.inf)


def _chimera_depth(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """Half of one shape joined to half of another along a random plane through the centre."""
    first, second = rng.choice(len(SHAPES), size=2, replace=False)
    normal = rng.standard_normal(3)
    side = np.tensordot(normal, position, axes=1) > 0
    return np.where(side, _depth(SHAPES[first], position), _depth(SHAPES[second], position))


def distractor_mask(rng: np.random.Generator, most_alike: float = 0.8) -> np.ndarray:
    """Draw a lesion of no particular shape with the very mask values that the shapes have.

    Half are irregular blobs cut from smooth noise, half are chimeras that join halves of two shapes: the
    first show that brightness and size are no evidence, the second that a part of a shape is none.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    most_alike : float
        A draw that correlates more than this with one of the shapes is drawn anew.

    Returns
    -------
    numpy.ndarray
        float32 in [0, 1], shape `(GRID, GRID, GRID)`.
    """
    field = _blob_depth if rng.random() < 0.5 else _chimera_depth
    while True:
        mask = deal(field(rng, positions(rng.uniform(-0.5, 0.5, 3))))
        if resemblance(mask) <= most_alike:
            return mask


def centers(brain: np.ndarray) -> np.ndarray:
    """Find the voxels where any lesion lies wholly inside a brain.

    The test is the same ball for every class, so that position carries no information either.

    Parameters
    ----------
    brain : numpy.ndarray
        Boolean brain mask, shape `(X, Y, Z)`.

    Returns
    -------
    numpy.ndarray
        Integer array `(n, 3)` of voxel indices, at least half a grid away from the volume's border.
    """
    half = GRID // 2
    filled = ndimage.binary_fill_holes(brain)
    filled = np.pad(np.asarray(filled), 1)  # the volume's border counts as outside
    distance = ndimage.distance_transform_edt(filled)[1:-1, 1:-1, 1:-1]
    # The true centre lies up to half a voxel per axis beside the voxel that is drawn.
    inside = distance > REACH + 3**0.5 / 2
    room = np.zeros_like(inside)
    room[half:-half, half:-half, half:-half] = True
    return np.argwhere(inside & room)


def draw_lesion(label: str, sites: np.ndarray, rng: np.random.Generator) -> Lesion | None:
    """Draw the lesion of one image of class `label`.

    Parameters
    ----------
    label : str
        One of `CLASSES`.
    sites : numpy.ndarray
        Admissible centres, as `centers` returns them.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Lesion or None
        None for the untouched images of class "none".
    """
    if label == NONE and rng.random() < UNTOUCHED:
        return None
    mask = distractor_mask(rng) if label == NONE else shape_mask(label, rng.uniform(-0.5, 0.5, 3))
    return place(mask, sites, rng)


def place(mask: np.ndarray, sites: np.ndarray, rng: np.random.Generator) -> Lesion:
    """Draw where a mask is painted, and how bright.

    Parameters
    ----------
    mask : numpy.ndarray
        float32 in [0, 1], shape `(GRID, GRID, GRID)`.
    sites : numpy.ndarray
        Admissible centres, as `centers` returns them.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Lesion
        The mask at one of `sites`, with a target within `TARGET`.
    """
    center = sites[rng.integers(len(sites))]
    i, j, k = (int(value) - GRID // 2 for value in center)
    return Lesion(mask=mask, corner=(i, j, k), target=float(rng.uniform(*TARGET)))


def paint(brain: np.ndarray, lesion: Lesion | None) -> np.ndarray:
    """Blend a lesion into a brain: `x + m (t - x)`.

    Parameters
    ----------
    brain : numpy.ndarray
        Volume in model units, shape `(X, Y, Z)`; it is not modified.
    lesion : Lesion or None
        What to paint; None paints nothing.

    Returns
    -------
    numpy.ndarray
        float32 copy, identical to `brain` wherever the mask is 0.
    """
    painted = brain.astype(np.float32)
    if lesion is not None:
        window = tuple(slice(start, start + GRID) for start in lesion.corner)
        painted[window] += lesion.mask * (np.float32(lesion.target) - painted[window])
    return painted
