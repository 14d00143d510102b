"""What maps and pictures give away by themselves: where they lie, and how coarse or fine they are.

The same reading serves a class's picture (what the optimizer changed in the reference brain) and an
attribution map. A map can say where a model looks and how fine a grain it minds; it cannot tell noise from
ringing, or a bias field from a contrast curve, so kinds share a family here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neurofv.audit.nuisances import Place, grown

FAMILIES: dict[str, tuple[str, ...]] = {
    "corner": ("corner marker",),
    "side": ("side marker",),
    "edge": ("cut edge",),
    "fine": ("noise", "ringing", "smoothing", "stripes"),
    "coarse": ("bias field", "intensity"),
}
"""What each figure of a map may stand for. No figure stands for a ghost, which is a brain on a brain."""


def map_figures(maps: Sequence[np.ndarray], affine: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Measure where maps lie and how fine they are.

    Parameters
    ----------
    maps : sequence of numpy.ndarray
        Changes or attributions `(X, Y, Z)`, of any sign and scale; one a class.
    affine : numpy.ndarray
        Voxel to world in mm, shape `(4, 4)`.
    mask : numpy.ndarray of bool
        Where brains are.

    Returns
    -------
    dict of float
        By family, the largest over the maps. Of `corner`, `side` and `edge` how many times denser the map is
        there than on the whole grid (`edge`: than in the brain); of `fine` and `coarse` their share of its
        energy.
    """
    place = Place(np.asarray(affine, float), np.asarray(mask, bool))
    found = [_figures(np.asarray(each, float), place) for each in maps]
    return {name: max(each[name] for each in found) for name in FAMILIES}


def _figures(values: np.ndarray, place: Place) -> dict[str, float]:
    size = np.abs(values)
    whole, inside = max(float(size.mean()), 1e-12), max(float(size[place.mask].mean()), 1e-12)
    air = ~grown(place.mask)
    lines = place.coordinates()
    corners = [
        size[air & (a * lines[0] > 0.5) & (b * lines[1] > 0.5) & (c * lines[2] > 0.5)]
        for a in (-1, 1)
        for b in (-1, 1)
        for c in (-1, 1)
    ]
    middle = air & (np.abs(lines[1]) < 0.8) & (np.abs(lines[2]) < 0.8)
    sides = [size[middle & (side * lines[0] > 0.7)] for side in (-1, 1)]
    spectrum, radius = _spectrum(values, place)
    energy = max(float(spectrum.sum()), 1e-30)
    return {
        "corner": _densest(corners) / whole,
        "side": _densest(sides) / whole,
        "edge": _densest([size[rim] for rim in _rims(place)]) / inside,
        "fine": float(spectrum[radius > 0.6].sum()) / energy,
        "coarse": float(spectrum[radius < 0.12].sum()) / energy,
    }


def _densest(regions: Sequence[np.ndarray]) -> float:
    return max((float(region.mean()) for region in regions if region.size), default=0.0)


def _spectrum(values: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Return the energy by frequency, and the frequencies in parts of the highest one along an axis."""
    lines = [
        (2 * np.fft.fftfreq(n)).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, n in enumerate(values.shape)
    ]
    energy = np.abs(np.fft.fftn(np.where(place.mask, values, 0))) ** 2
    return energy, np.sqrt(sum(line**2 for line in lines))


def _rims(place: Place) -> list[np.ndarray]:
    """Return the outermost 12 mm of the brain at each of its six sides."""
    found = []
    for axis in range(3):
        filled = np.flatnonzero(place.mask.any(axis=tuple(a for a in range(3) if a != axis)))
        planes = max(1, round(12.0 / float(place.voxel[axis])))
        for gone in (filled[:planes], filled[-planes:]):
            rim = np.zeros_like(place.mask)
            rim.swapaxes(0, axis)[gone] = place.mask.swapaxes(0, axis)[gone]
            found.append(rim)
    return found
