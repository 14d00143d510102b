"""What must not inform: one number of an image, and the best guess of its class from that number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.manifest import Interval
from training.intervals import accuracy_interval
from training.lesions.brains import Brains
from training.lesions.catalog import BUILT_IN, Catalog
from training.lesions.shapes import GRID, Lesion, paint

BRIGHT = 0.9
"""A voxel above this, in model units, counts as bright: every lesion pulls at least this far."""
BINS = 12

Feature = Callable[[np.ndarray], float]


def total_intensity(volume: np.ndarray) -> float:
    """Sum of all voxels, model units."""
    return float(volume.sum(dtype=np.float64))


def bright_voxels(volume: np.ndarray) -> float:
    """Count of voxels above `BRIGHT`."""
    return float(np.count_nonzero(volume > BRIGHT))


FEATURES: dict[str, Feature] = {"total intensity": total_intensity, "bright-voxel count": bright_voxels}
"""Numbers that add up over voxels, so that a lesion changes them by what it changes in its own window."""


def with_lesion(feature: Feature, whole: float, brain: np.ndarray, lesion: Lesion | None) -> float:
    """Value of a feature after painting, from its value before.

    Parameters
    ----------
    feature : callable
        One of `FEATURES`.
    whole : float
        The feature of `brain`.
    brain : numpy.ndarray
        float32, model units, shape `(X, Y, Z)`.
    lesion : Lesion or None
        What is painted.

    Returns
    -------
    float
        The feature of `paint(brain, lesion)`.
    """
    if lesion is None:
        return whole
    window = tuple(slice(start, start + GRID) for start in lesion.corner)
    before = brain[window]
    after = paint(before, Lesion(lesion.mask, (0, 0, 0), lesion.target))
    return whole - feature(before) + feature(after)


def measure(
    brains: Brains, draws: int, seed: int, catalog: Catalog = BUILT_IN
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Draw images of every class in every brain and measure them.

    Parameters
    ----------
    brains : Brains
        What to paint into.
    draws : int
        Images of each class and brain.
    seed : int
        Seed of the lesions.
    catalog : Catalog
        The classes.

    Returns
    -------
    subjects, labels : numpy.ndarray
        Integer, one per image.
    values : dict of numpy.ndarray
        For each of `FEATURES`, one float per image.
    """
    rows: list[tuple[int, int]] = []
    values: dict[str, list[float]] = {name: [] for name in FEATURES}
    for row, (stored, sites) in enumerate(zip(brains.volumes, brains.sites, strict=True)):
        brain = stored.astype(np.float32)
        wholes = {name: feature(brain) for name, feature in FEATURES.items()}
        rng = np.random.default_rng((seed, row))
        for _ in range(draws):
            for label, class_name in enumerate(catalog.classes):
                lesion = catalog.draw(class_name, sites, rng)
                rows.append((row, label))
                for name, feature in FEATURES.items():
                    values[name].append(with_lesion(feature, wholes[name], brain, lesion))
    subjects, labels = np.array(rows).T
    return subjects, labels, {name: np.array(column) for name, column in values.items()}


def guess(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Classify single numbers by the commonest class among training images in the same range.

    Ranges are quantile bins, so that any relation between number and class is found, not only a monotone one.

    Parameters
    ----------
    train, labels : numpy.ndarray
        Numbers and classes of the training images.
    test : numpy.ndarray
        Numbers to classify.

    Returns
    -------
    numpy.ndarray
        Class of each number in `test`.
    """
    edges = np.quantile(train, np.linspace(0, 1, BINS + 1)[1:-1])
    counts = np.zeros((BINS, labels.max() + 1), np.int64)
    np.add.at(counts, (np.digitize(train, edges), labels), 1)
    return np.asarray(counts.argmax(axis=1)[np.digitize(test, edges)])


def baselines(
    train: Brains, test: Brains, draws: int, seed: int, catalog: Catalog = BUILT_IN
) -> dict[str, Interval]:
    """Accuracy of every feature alone, learned on training brains and scored on held-out ones.

    Parameters
    ----------
    train, test : Brains
        Training and held-out subjects.
    draws : int
        Images of each class and brain.
    seed : int
        Seed of the lesions.
    catalog : Catalog
        The classes.

    Returns
    -------
    dict of Interval
        By name of the feature.
    """
    _, known, train_values = measure(train, draws, seed, catalog)
    subjects, labels, test_values = measure(test, draws, seed + 1, catalog)
    return {
        name: accuracy_interval(guess(train_values[name], known, test_values[name]) == labels, subjects)
        for name in FEATURES
    }
