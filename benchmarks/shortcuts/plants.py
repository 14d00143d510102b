"""What is planted: the shortcuts, each with a dose and a place drawn for one cohort, and honest signals.

Nothing here is shared with the audit's own nuisances (`neurofv.audit`): markers are cubes and letters there
are blobs, ringing is MONAI's truncation of a ball where the audit truncates along an axis, and so on. A
detection then says more than that an audit knows its own handwriting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import GibbsNoise
from scipy import ndimage

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Turns one image, float32 `(X, Y, Z)` in model units, 0 outside the brain, into a planted one."""
VOXEL_MM = 6.0
"""Of the grid that the cohorts lie on: a third of the resolution of the scans."""
Draw = Callable[[np.random.Generator], tuple[Change, Change]]
"""Fixes a cohort's plant, and returns what happens to images of class 0 and of class 1."""


@dataclass(frozen=True)
class Signal:
    """What tells the two classes of a cohort apart.

    Attributes
    ----------
    draw : callable
        Fixes the details for one cohort.
    shortcut : bool
        Whether it is one, or an honest sign in the brain.
    words : str
        For the report.
    """

    draw: Draw
    shortcut: bool
    words: str


def _as_is(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


def _inside(changed: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Keep what lies in the brain: artefacts arise before the skull is stripped."""
    return np.where(image > 0, np.maximum(changed, 0), 0).astype(np.float32)


def _stamp(image: np.ndarray, first: np.ndarray, pattern: np.ndarray, value: float) -> np.ndarray:
    marked = image.copy()
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(first, pattern.shape, strict=True))
    marked[box] = np.where(pattern, value, marked[box])
    return marked


def corner(rng: np.random.Generator) -> tuple[Change, Change]:
    """Draw a bright cube of 12 or 18 mm in one of the eight corners."""
    far, edge, value = rng.integers(2, size=3), int(rng.integers(2, 4)), rng.uniform(0.9, 1.1)

    def mark(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        margin = rng.integers(1, 3, size=3)
        first = np.where(far, np.array(image.shape) - edge - margin, margin)
        return _stamp(image, first, np.ones((edge,) * 3, bool), value)

    return _as_is, mark


def side(rng: np.random.Generator) -> tuple[Change, Change]:
    """Draw a letter in air: at the right side of the head in one class, at the left side in the other."""
    letter = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]], bool)[None].repeat(2, axis=0)
    height, depth, value = rng.uniform(0.3, 0.8), rng.uniform(0.1, 0.9), rng.uniform(0.6, 1.0)

    def mark(high: bool) -> Change:
        def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            x = image.shape[0] - 2 - 1 if high else 1
            first = np.array([x, depth * (image.shape[1] - 6), height * (image.shape[2] - 5)])
            return _stamp(image, first + rng.integers(-1, 2, size=3) * [0, 1, 1], letter, value)

        return change

    return mark(True), mark(False)


def ringing(rng: np.random.Generator) -> tuple[Change, Change]:
    """Gibbs ringing: k-space cut to a ball (MONAI's GibbsNoise)."""
    low = rng.uniform(0.5, 0.6)

    def ring(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        cut = GibbsNoise(alpha=float(low + rng.uniform(0, 0.1)))
        return _inside(np.asarray(cut(torch.from_numpy(image[None]))[0]), image)

    return _as_is, ring


def ghosting(rng: np.random.Generator) -> tuple[Change, Change]:
    """Add a faint copy of the head, half a field of view away along one axis."""
    axis, low = int(rng.integers(3)), rng.uniform(0.06, 0.1)

    def ghost(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        share = low + rng.uniform(0, 0.05)
        return _inside(image * (1 - share) + share * np.roll(image, image.shape[axis] // 2, axis), image)

    return _as_is, ghost


def bias(rng: np.random.Generator) -> tuple[Change, Change]:
    """Multiply by a smooth field of one pattern, a random polynomial of degree 2."""
    weights, low = rng.normal(size=9), rng.uniform(0.08, 0.12)

    def field(shape: tuple[int, ...]) -> np.ndarray:
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
        terms = np.stack([x, y, z, x * y, x * z, y * z, x**2, y**2, z**2])
        found = np.tensordot(weights, terms, axes=1)
        return np.asarray((found - found.mean()) / found.std())

    def shade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _inside(image * np.exp((low + rng.uniform(0, 0.05)) * field(image.shape)), image)

    return _as_is, shade


def noise(rng: np.random.Generator) -> tuple[Change, Change]:
    """Rician noise: that of a magnitude image."""
    low = rng.uniform(0.04, 0.06)

    def disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        real, imaginary = rng.normal(0, low + rng.uniform(0, 0.02), (2, *image.shape))
        return _inside(np.hypot(image + real, imaginary), image)

    return _as_is, disturb


def smoothing(rng: np.random.Generator) -> tuple[Change, Change]:
    """Blur with a Gaussian, as of another interpolation or a smoothing step."""
    low = rng.uniform(0.45, 0.6)

    def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _inside(ndimage.gaussian_filter(image, low + rng.uniform(0, 0.15)), image)

    return _as_is, blur


def intensity(rng: np.random.Generator) -> tuple[Change, Change]:
    """Another contrast curve: a plain scale would not survive the normalization, a bent curve does."""
    up, low = bool(rng.integers(2)), rng.uniform(0.6, 0.9)

    def curve(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        k = low + rng.uniform(0, 0.3)
        changed = np.log1p(k * image) / np.log1p(k) if up else np.expm1(k * image) / np.expm1(k)
        return _inside(changed, image)

    return _as_is, curve


def cut(rng: np.random.Generator) -> tuple[Change, Change]:
    """End the field of view early: some planes at one face of the head are empty."""
    axis, far, planes = int(rng.integers(1, 3)), bool(rng.integers(2)), int(rng.integers(1, 3))

    def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        filled = np.flatnonzero(image.swapaxes(0, axis).reshape(image.shape[axis], -1).any(axis=1))
        count = planes + int(rng.integers(0, 2))
        gone = filled[-count:] if far else filled[:count]
        cropped = image.copy()
        cropped.swapaxes(0, axis)[gone] = 0
        return cropped

    return _as_is, crop


def spike(rng: np.random.Generator) -> tuple[Change, Change]:
    """Stripes: one point of k-space is far too strong."""
    wave, low = rng.uniform(0.12, 0.3, 3) * rng.choice([-1, 1], 3), rng.uniform(0.06, 0.09)

    def stripe(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        places = np.tensordot(wave, np.indices(image.shape), axes=1)
        waves = np.cos(2 * np.pi * (places + rng.uniform()))
        return _inside(image + (low + rng.uniform(0, 0.02)) * waves * (image > 0), image)

    return _as_is, stripe


def lesions(rng: np.random.Generator) -> tuple[Change, Change]:
    """Round dark lesions anywhere inside the brain."""
    radius, number = rng.uniform(1.5, 2.0), int(rng.integers(16, 22))

    def grow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        deep = np.argwhere(ndimage.binary_erosion(image > 0, iterations=2))
        centres = deep[rng.integers(len(deep), size=number)]
        marks = np.ones(image.shape, bool)
        marks[tuple(centres.T)] = False
        near = np.clip(radius + 0.5 - ndimage.distance_transform_edt(marks), 0, 1)
        return _inside(image + near * (rng.uniform(0.1, 0.2) - image), image)

    return _as_is, grow


def ventricles(rng: np.random.Generator) -> tuple[Change, Change]:
    """Larger ventricles: the brain's middle is darker, at both sides alike."""
    width, most = rng.uniform(14.0, 18.0), rng.uniform(0.4, 0.5)

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        weight = _near(image, np.array([0.0, -8.0, 14.0]), width, rng)
        return _inside(image * (1 + (most - 1) * weight), image)

    return _as_is, change


def _near(image: np.ndarray, centre: np.ndarray, width_mm: float, rng: np.random.Generator) -> np.ndarray:
    middle = (np.array(image.shape) - 1) / 2 + centre / VOXEL_MM + rng.normal(0, 0.3, 3)
    distance = VOXEL_MM * np.linalg.norm(np.indices(image.shape) - middle.reshape(3, 1, 1, 1), axis=0)
    return np.asarray(np.exp(-((distance / width_mm) ** 2)))


def _regional(value: float, width_mm: float, least_share: float) -> Draw:
    """Deal one region of the left or right hemisphere another intensity in one class.

    No voxel becomes the brain's brightest: the normalization would darken all others, a shortcut by itself.
    """

    def draw(rng: np.random.Generator) -> tuple[Change, Change]:
        centre = np.array([rng.choice([-24.0, 24.0]), rng.uniform(-30, 20), rng.uniform(-5, 25)])
        share = least_share + rng.uniform(0, 0.1)

        def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            step = np.minimum(value - image, 0) if value < 0.5 else np.maximum(value - image, 0)
            return _inside(image + share * _near(image, centre, width_mm, rng) * step, image)

        return _as_is, change

    return draw


SIGNALS: dict[str, Signal] = {
    "corner": Signal(corner, True, "a bright cube in a corner"),
    "side": Signal(side, True, "a letter at the left or right side"),
    "ringing": Signal(ringing, True, "Gibbs ringing"),
    "ghosting": Signal(ghosting, True, "a ghost of the head"),
    "bias": Signal(bias, True, "a bias field of one pattern"),
    "noise": Signal(noise, True, "more noise"),
    "smoothing": Signal(smoothing, True, "a blur"),
    "intensity": Signal(intensity, True, "another contrast curve"),
    "cut": Signal(cut, True, "a cut edge of the field of view"),
    "spike": Signal(spike, True, "stripes of a spike in k-space"),
    "lesions": Signal(lesions, False, "dark lesions anywhere in the brain"),
    "ventricles": Signal(ventricles, False, "a darker middle of the brain"),
    "dark-region": Signal(_regional(0.2, 16.0, 0.6), False, "a darker region of one hemisphere"),
    "bright-region": Signal(_regional(0.9, 24.0, 0.85), False, "a brighter region of one hemisphere"),
}
"""Every kind of cohort. All clean ones have a sign in the brain that a radiologist would accept."""
