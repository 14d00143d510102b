"""Nuisances: what a scanner or a site may add to an image.

Images are arrays `(X, Y, Z)` along the axes of their affine, with bright tissue at 1. Lengths are mm. Voxels
of 0 stay 0 wherever a nuisance arises before the skull is stripped. Only numpy is needed, so that any caller
of a model can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

Change = Callable[..., np.ndarray]
"""Turns an image, bright tissue at 1, into its changed twin; it also takes a `place`."""


@dataclass(frozen=True)
class Place:
    """Where an image lies.

    Attributes
    ----------
    affine : numpy.ndarray
        Voxel to world in mm, shape `(4, 4)`.
    mask : numpy.ndarray of bool
        Where brains are, on the image's grid.
    """

    affine: np.ndarray
    mask: np.ndarray

    @property
    def voxel(self) -> np.ndarray:
        """Voxel sizes along the array's axes, mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    def directions(self) -> list[tuple[int, bool]]:
        """For x, y and z of the world: the array's axis that runs along it, and whether it runs backwards."""
        turn = self.affine[:3, :3] / self.voxel
        axes = [int(np.argmax(np.abs(row))) for row in turn]
        return [(axis, bool(turn[world, axis] < 0)) for world, axis in enumerate(axes)]

    def coordinates(self) -> list[np.ndarray]:
        """Coordinates from -1 (left, back, bottom) to 1 (right, front, top), broadcastable to the grid."""
        found = []
        for axis, backwards in self.directions():
            line = np.linspace(-1, 1, self.mask.shape[axis])
            found.append((-line if backwards else line).reshape([-1 if a == axis else 1 for a in range(3)]))
        return found

    def millimetres(self) -> list[np.ndarray]:
        """Like `coordinates`, in mm from the grid's middle."""
        lengths = [self.voxel[axis] * (self.mask.shape[axis] - 1) / 2 for axis, _ in self.directions()]
        return [line * length for line, length in zip(self.coordinates(), lengths, strict=True)]


@dataclass(frozen=True)
class Variant:
    """One form of a nuisance.

    Attributes
    ----------
    words : str
        What is done, for people.
    change : callable
        Does it.
    """

    words: str
    change: Change


def variant(words: str, change: Callable[..., np.ndarray], **choices: object) -> Variant:
    """Return a form whose change has its choices made."""
    return Variant(words, partial(change, **choices))


@dataclass(frozen=True)
class Nuisance:
    """One kind of nuisance.

    Attributes
    ----------
    kind : str
        Its name.
    words : str
        What it is, for people.
    variants : tuple of Variant
        Forms and places that are tried.
    mix : callable or None
        Makes one more form out of how far each of the others moves a model.
    """

    kind: str
    words: str
    variants: tuple[Variant, ...]
    mix: Callable[[Sequence[float]], Variant] | None = None


def _kept(changed: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.where(image != 0, np.maximum(changed, 0), 0)


def _frequencies(place: Place) -> list[np.ndarray]:
    """Cycles a mm along each axis of the array, broadcastable."""
    return [
        np.fft.fftfreq(n, size).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, size) in enumerate(zip(place.mask.shape, place.voxel, strict=True))
    ]


def _filtered(image: np.ndarray, response: np.ndarray) -> np.ndarray:
    return np.asarray(np.fft.ifftn(np.fft.fftn(image) * response).real)


def _blurred(image: np.ndarray, place: Place, fwhm_mm: float) -> np.ndarray:
    sigma = fwhm_mm / 2.3548
    squares = sum(line**2 for line in _frequencies(place))
    return _filtered(image, np.exp(-2 * (np.pi * sigma) ** 2 * squares))


def blob(image: np.ndarray, place: Place, at: Sequence[float], value: float, radius_mm: float) -> np.ndarray:
    """Add a soft ball; `at` is from -1 to 1 along the world's axes, kept as far inside as it is wide."""
    square: np.ndarray | float = 0.0
    for line, middle in zip(place.millimetres(), at, strict=True):
        inside = max(np.abs(line).max() - radius_mm, 0)
        square = square + (line - middle * inside) ** 2
    weight = np.clip(1.5 - np.sqrt(square) / radius_mm, 0, 1)
    return image + weight * (value - image)


def in_air(image: np.ndarray, place: Place, **choices: Any) -> np.ndarray:
    """Add a `blob` where there is no brain."""
    return np.where((image == 0) & ~place.mask, blob(image, place, **choices), image)


def cleared(image: np.ndarray, place: Place, sides: Mapping[int, int]) -> np.ndarray:
    """Empty the air in a corner, or at a side between the corners: `sides` tells -1 or 1 by world axis."""
    air, lines = ~(grown(place.mask) if len(sides) == 3 else place.mask), place.coordinates()
    for axis, side in sides.items():
        air = air & (side * lines[axis] > (0.5 if len(sides) == 3 else 0.7))
    if len(sides) == 1:
        air = air & ~((np.abs(lines[1]) > 0.5) & (np.abs(lines[2]) > 0.5))
    return np.where(air, 0, image)


def grown(mask: np.ndarray) -> np.ndarray:
    """Dilate by a voxel along each axis."""
    padded = np.pad(mask, 1)
    found = padded.copy()
    for axis in range(3):
        for step in (-1, 1):
            found |= np.roll(padded, step, axis)
    return found[1:-1, 1:-1, 1:-1]


def ringing(image: np.ndarray, place: Place, axes: Sequence[int], share: float) -> np.ndarray:
    """Cut k-space off above a share of the highest frequency along some axes."""
    response: np.ndarray | float = 1.0
    for axis in axes:
        line = _frequencies(place)[axis]
        response = response * (np.abs(line) <= share * np.abs(line).max())
    return _kept(_filtered(image, np.asarray(response)), image)


def ghosting(image: np.ndarray, place: Place, axis: int, share: float) -> np.ndarray:
    """Weaken every second line of k-space: a copy appears half a field of view away."""
    n = image.shape[axis]
    lines = 1 - 2 * share * (np.arange(n) % 2)
    shape = [-1 if a == axis else 1 for a in range(3)]
    return _kept(_filtered(image, lines.reshape(shape)), image)


def shading(image: np.ndarray, place: Place, pattern: np.ndarray, strength: float) -> np.ndarray:
    """Multiply by a smooth field: the exponential of a pattern of unit deviation."""
    return image * np.exp(strength * pattern)


def patterns(place: Place) -> dict[str, np.ndarray]:
    """Polynomials of degree 1 and 2 with mean 0, deviation 1 and no correlation where brains are."""
    x, y, z = (np.broadcast_to(line, place.mask.shape) for line in place.coordinates())
    raw = {"x": x, "y": y, "z": z, "xy": x * y, "xz": x * z, "yz": y * z, "xx": x**2, "yy": y**2, "zz": z**2}
    found: dict[str, np.ndarray] = {}
    for name, field in raw.items():
        for other in found.values():
            field = field - other * np.mean((field * other)[place.mask])
        found[name] = _standard(field, place.mask)
    return found


def _standard(field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.asarray((field - field[mask].mean()) / max(float(field[mask].std()), 1e-6))


def mixed(place: Place, strength: float, weights: Sequence[float]) -> Variant:
    """Return the field that moves a model most, from how far each rising and falling field moves it."""
    rising = np.array(weights).reshape(-1, 2)
    mix = rising[:, 0] - rising[:, 1]
    field = np.tensordot(mix, np.stack(list(patterns(place).values())), axes=1)
    words = "a field mixed of those that move it"
    return variant(words, shading, pattern=_standard(field, place.mask), strength=strength)


def noisy(image: np.ndarray, place: Place, deviation: float) -> np.ndarray:
    """Add Gaussian noise, the same whenever it is called."""
    drawn = np.random.default_rng(0).normal(0, deviation, image.shape)
    return _kept(image + drawn, image)


def smoothed(image: np.ndarray, place: Place, fwhm_voxels: float) -> np.ndarray:
    """Blur with a Gaussian; below 0, sharpen by as much."""
    blurred = _blurred(image, place, abs(fwhm_voxels) * float(place.voxel.mean()))
    return _kept(blurred if fwhm_voxels > 0 else 2 * image - blurred, image)


def bent(image: np.ndarray, place: Place, exponent: float) -> np.ndarray:
    """Raise to a power: a contrast that survives any scale."""
    return np.asarray(np.abs(image) ** exponent)


def cut(image: np.ndarray, place: Place, world: int, side: int, length_mm: float) -> np.ndarray:
    """End the field of view early: the brain's outermost planes at one side are empty."""
    axis, backwards = place.directions()[world]
    planes = max(1, round(length_mm / float(place.voxel[axis])))
    others = tuple(a for a in range(3) if a != axis)
    head = (image != 0) & grown(place.mask)
    filled = np.flatnonzero(head.any(axis=others))
    gone = filled[-planes:] if (side > 0) != backwards else filled[:planes]
    lost = np.zeros(image.shape[axis], bool)
    lost[gone] = True
    # What lies in the air stays, so that markers there are not taken for an edge.
    return np.where(head & lost.reshape([-1 if a == axis else 1 for a in range(3)]), 0, image)


def spiked(image: np.ndarray, place: Place, wave: Sequence[float], share: float) -> np.ndarray:
    """Add stripes, as one point of k-space that is far too strong does; `wave` in cycles a voxel."""
    phase = sum(
        step * np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, step) in enumerate(zip(image.shape, wave, strict=True))
    )
    return _kept(image + share * np.cos(2 * np.pi * phase), image)
