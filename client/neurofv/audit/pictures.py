"""What maps and pictures give away by themselves: where they lie, and how coarse or fine they are.

The same reading serves a class's picture (what the optimizer changed in the reference brain) and an
attribution map. A map can say where a model looks and how fine a grain it minds; it cannot tell noise from
ringing, or a bias field from a contrast curve, so kinds share a family here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neurofv.audit.nuisances import Place, grown
from neurofv.audit.shortcuts import Finding

FAMILIES: dict[str, tuple[str, ...]] = {
    "corner": ("corner marker",),
    "side": ("side marker",),
    "edge": ("cut edge",),
    "fine": ("noise", "ringing", "smoothing", "stripes"),
    "coarse": ("bias field", "intensity"),
}
"""What each figure of a map may stand for. No figure stands for a ghost, which is a brain on a brain."""
WORDS = {
    "corner": "corners of the field of view",
    "side": "the air beside the head",
    "edge": "one edge of the brain",
    "fine": "the finest grain",
    "coarse": "the coarsest shades",
}


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


def read_pictures(
    pictures: Sequence[np.ndarray],
    reference: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    controls: Sequence[np.ndarray],
    least: Mapping[str, float] | float = 2.0,
) -> list[Finding]:
    """Say where the pictures of a model's classes lie that those of its random twin do not.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray
        Final volumes of the class units, `(X, Y, Z)`, model units.
    reference : numpy.ndarray
        The reference brain that they began on.
    mask : numpy.ndarray of bool
        Where brains are.
    affine : numpy.ndarray
        Voxel to world in mm.
    controls : sequence of numpy.ndarray
        The same units' pictures of the network with random weights; they begin on the same brain.
    least : mapping of str to float, or float
        How many times the control's figure is reported, by family or for all.

    Returns
    -------
    list of Finding
        The largest first. Their kind is the family's only or first one; `evidence` names all that it may be.
        Evidence beside `find_shortcuts`, not a verdict of its own: see docs/shortcuts.md for how often it
        is right.
    """
    own = map_figures([each - reference for each in pictures], affine, mask)
    other = map_figures([each - reference for each in controls], affine, mask)
    found = []
    for family, kinds in FAMILIES.items():
        ratio = own[family] / max(other[family], 1e-6)
        limit = least if isinstance(least, float | int) else least[family]
        if ratio >= limit:
            words = (
                f"Pictures of the classes lie {ratio:.1f} times as much in {WORDS[family]} as the control's."
            )
            evidence: dict[str, object] = {"family": family, "may_be": list(kinds)}
            found.append((ratio, Finding(kinds[0], words, own[family], other[family], evidence)))
    return [finding for _, finding in sorted(found, key=lambda pair: -pair[0])]
