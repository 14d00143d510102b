"""The battery: which nuisances are tried, in which forms and strengths."""

from __future__ import annotations

from functools import partial

import numpy as np

from neurofv.audit.nuisances import (
    Nuisance,
    Place,
    bent,
    blob,
    cleared,
    cut,
    ghosting,
    in_air,
    mixed,
    noisy,
    patterns,
    ringing,
    shading,
    smoothed,
    spiked,
    variant,
)

_SIDES = (("left", "right"), ("back", "front"), ("bottom", "top"))


def battery(place: Place) -> dict[str, Nuisance]:
    """Return every nuisance by kind, in the strengths that the rule's limits were fixed at.

    Parameters
    ----------
    place : Place
        Where the images lie.
    """
    found = (*_markers(place), *_of_sampling(), _field(place), *_of_grain(), _edge(), _stripes())
    return {each.kind: each for each in found}


def _markers(place: Place) -> tuple[Nuisance, Nuisance]:
    """Return something bright in the air, put there or taken away."""
    wide = float(min(10.0, 0.1 * min(np.array(place.mask.shape) * place.voxel)))
    corners = [
        variant(
            f"a bright blob in the corner {words}", blob, at=tuple(at.values()), value=1.0, radius_mm=wide
        )
        for words, at in _corners()
    ] + [variant(f"the corner {words} emptied", cleared, sides=at) for words, at in _corners()]
    places = [(s, y, z) for s in (-1, 1) for y in (-0.4, 0.4) for z in (-0.3, 0.3)]
    sides = [
        variant(f"a bright blob in the air, {_SIDES[0][at[0] > 0]}", in_air, at=at, value=1.0, radius_mm=wide)
        for at in places
    ] + [variant(f"the air on the {_SIDES[0][s > 0]} emptied", cleared, sides={0: s}) for s in (-1, 1)]
    return (
        Nuisance("corner marker", "something bright in a corner of the field of view", tuple(corners)),
        Nuisance("side marker", "something bright beside the head", tuple(sides)),
    )


def _corners() -> list[tuple[str, dict[int, int]]]:
    sides = [{0: a, 1: b, 2: c} for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    return [(", ".join(_SIDES[axis][side > 0] for axis, side in each.items()), each) for each in sides]


def _of_sampling() -> tuple[Nuisance, Nuisance]:
    """Return what goes wrong in k-space."""
    axes: list[tuple[int, ...]] = [(0,), (1,), (2,), (0, 1, 2)]
    rings = [variant(f"k-space cut along axes {each}", ringing, axes=each, share=0.6) for each in axes]
    ghosts = [variant(f"a ghost along axis {axis}", ghosting, axis=axis, share=0.08) for axis in range(3)]
    return (
        Nuisance("ringing", "Gibbs ringing", tuple(rings)),
        Nuisance("ghosting", "a ghost of the head", tuple(ghosts)),
    )


def _field(place: Place) -> Nuisance:
    fields = [
        variant(f"a field along {name}, {words}", shading, pattern=pattern, strength=strength)
        for name, pattern in patterns(place).items()
        for words, strength in (("rising", 0.1), ("falling", -0.1))
    ]
    mix = partial(mixed, place, 0.1)
    return Nuisance("bias field", "a smooth field over the intensities", tuple(fields), mix)


def _of_grain() -> tuple[Nuisance, Nuisance, Nuisance]:
    """Return noise, blur and contrast."""
    blurs = [variant(w, smoothed, fwhm_voxels=f) for w, f in (("blurred", 1.4), ("sharpened", -1.4))]
    curves = [variant(f"raised to the power {e}", bent, exponent=e) for e in (0.8, 1.25)]
    return (
        Nuisance("noise", "noise", (variant("noise added", noisy, deviation=0.06),)),
        Nuisance("smoothing", "blur or sharpness", tuple(blurs)),
        Nuisance("intensity", "the contrast curve", tuple(curves)),
    )


def _edge() -> Nuisance:
    cuts = [
        variant(f"the {_SIDES[w][s > 0]} cut off", cut, world=w, side=s, length_mm=12.0)
        for w in range(3)
        for s in (-1, 1)
    ]
    return Nuisance("cut edge", "where the field of view ends", tuple(cuts))


def _stripes() -> Nuisance:
    waves = [(w, w * a, w * b) for w in (0.15, 0.2, 0.25) for a in (-1, 1) for b in (-1, 1)]
    forms = [variant(f"stripes of wave {wave}", spiked, wave=wave, share=0.08) for wave in waves]
    return Nuisance("stripes", "stripes over the image", tuple(forms))
