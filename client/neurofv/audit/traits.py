"""What images are like: numbers in which artefacts show, so that classes of images can be compared.

A model that minds a nuisance need not use it: one that looks for small lesions minds sharpness too. A
shortcut is there if the images that it tells apart also differ in the way of the nuisance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neurofv.audit.nuisances import Place, grown, patterns

BANDS = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Upper ends of bands of frequency, in parts of the highest one along an axis."""
LEAST = 1.0
"""Differences between classes below this, in deviations within a class, count as none."""


class Traits:
    """Describes images by numbers.

    What lies in each corner and beside the head, where the head ends, quantiles of tissue, moments of a bias
    field, ghosts, energies by frequency, and roughness along each axis.

    Parameters
    ----------
    place : Place
        Where the images lie.
    """

    def __init__(self, place: Place) -> None:
        self.mask, self.near = place.mask, grown(place.mask)
        self.regions = _regions(place)
        self.fields = [field[place.mask] for field in patterns(place).values()]
        lines = [
            (2 * np.fft.fftfreq(n)).reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, n in enumerate(place.mask.shape)
        ]
        radius = np.sqrt(sum(line**2 for line in lines))
        self.rings = [(radius > a) & (radius <= b) for a, b in zip((0.0, *BANDS), BANDS, strict=False)]
        self.outside = radius > 1
        self.along = [np.broadcast_to(np.abs(line) > 0.6, radius.shape) for line in lines]

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the traits of images `(X, Y, Z)` with bright tissue at 1, shape `(images, traits)`."""
        return np.stack([self._one(image) for image in images])

    def _one(self, image: np.ndarray) -> np.ndarray:
        head = (image != 0) & self.near
        tissue = image[head] if head.any() else np.zeros(1)
        air = [np.sqrt(np.mean(image[each] ** 2)) if each.any() else 0.0 for each in self.regions]
        shades = np.quantile(tissue, (0.05, 0.25, 0.5, 0.75))
        moments = np.array([np.mean(image[self.mask] * field) for field in self.fields])
        level = max(float(image[self.mask].mean()), 1e-6)
        parts = (
            air,
            _ends(head),
            shades,
            moments / level,
            _ghosts(image),
            self._bands(image),
            self._rough(image),
        )
        return np.concatenate(parts)

    def _bands(self, image: np.ndarray) -> np.ndarray:
        # What lies in air has traits of its own.
        energy = np.abs(np.fft.fftn(np.where(self.near, image, 0))) ** 2
        means = [np.mean(energy[part]) + 1e-12 for part in (*self.rings, *self.along)]
        # Stripes are one point that stands out, wherever it is; low frequencies have such points by nature.
        peak = max(
            np.max(energy[part]) / (np.mean(energy[part]) + 1e-12) for part in (*self.rings[2:], self.outside)
        )
        return np.log(np.array([*means, peak]) + 1e-12)

    def _rough(self, image: np.ndarray) -> np.ndarray:
        found = []
        for axis, n in enumerate(image.shape):
            inside = np.take(self.mask, np.arange(1, n - 1), axis=axis)
            found.append(np.log(np.median(np.abs(np.diff(image, 2, axis=axis)[inside])) + 1e-6))
        return np.array(found)


def _regions(place: Place) -> list[np.ndarray]:
    """Return the air in the eight corners, and at the left and the right of the head."""
    x, y, z = place.coordinates()
    air, far = ~place.mask, ~grown(place.mask)
    corners = [
        far & (a * x > 0.4) & (b * y > 0.4) & (c * z > 0.4) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)
    ]
    return corners + [air & (side * x > 0.7) & (np.abs(y) < 0.9) & (np.abs(z) < 0.9) for side in (-1, 1)]


def _ends(head: np.ndarray) -> np.ndarray:
    """Where the outermost hundredth of a head lies on each side: a marker beside it hardly moves that."""
    found: list[float] = []
    for places in np.nonzero(head):
        ordered = np.sort(places)
        few = max(len(ordered) // 100, 1)
        found += [ordered[:few].mean(), ordered[-few:].mean()] if len(ordered) else [0.0, 0.0]
    return np.array(found)


def _ghosts(image: np.ndarray) -> np.ndarray:
    """How much of the image is found again, finely, half a field of view away."""
    fine = image - sum(np.roll(image, step, axis) for axis in range(3) for step in (-1, 1)) / 6
    energy = np.abs(np.fft.fftn(fine)) ** 2
    # A ghost is in all of k-space; a single strong point would look like one, or like its opposite.
    energy = np.minimum(energy, np.quantile(energy, 0.999))
    found = []
    for axis, n in enumerate(image.shape):
        turns = np.cos(2 * np.pi * np.arange(n) * (n // 2) / n)
        found.append(np.sum(energy * turns.reshape([-1 if a == axis else 1 for a in range(3)])))
    return np.array(found) / max(float(energy.sum()), 1e-12)


def likeness(before: np.ndarray, after: np.ndarray, away: np.ndarray, towards: np.ndarray) -> float:
    """Say how much a nuisance's change of traits is like the difference between two classes of images.

    Parameters
    ----------
    before, after : numpy.ndarray
        Traits of images and of their changed twins, shape `(n, traits)`.
    away, towards : numpy.ndarray
        Traits of the images of both classes, shape `(n, traits)`.

    Returns
    -------
    float
        1 if the classes differ in the way in which the nuisance changes images, and as much; 0 if they do not
        differ, or in other traits; -1 if they differ the other way round. Twice the inner product of the two
        by the sum of their squared lengths: a cosine that falls where one is much the longer, as of a blur
        that images of the two classes differ by a little.
    """
    if not len(away) or not len(towards):
        return 0.0
    within = np.concatenate([away - away.mean(axis=0), towards - towards.mean(axis=0)]).std(axis=0)
    spread = np.maximum(within, 1e-3)
    between = (towards.mean(axis=0) - away.mean(axis=0)) / spread
    between = np.sign(between) * np.maximum(np.abs(between) - LEAST, 0)
    # A trait that is constant within the classes would rule alone.
    between, step = np.arcsinh(between), np.arcsinh((after - before).mean(axis=0) / spread)
    sizes = float(between @ between + step @ step)
    return 2 * float(between @ step) / sizes if sizes > 1e-9 else 0.0
