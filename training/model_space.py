"""A cohort's brains as a bundle reads them: as they are, or cut and at half the resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models import Bundle
from training.cohort import NORMALIZATION, Cohort, CohortError, normalize
from training.whole.volumes import halve

Convert = Callable[[np.ndarray], np.ndarray]
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Chosen:
    """Some subjects of a cohort.

    Attributes
    ----------
    subjects : tuple of str
        Identifiers, in the cohort's order.
    words : str
        Who they are, for people.
    """

    subjects: tuple[str, ...]
    words: str


def choose_subjects(bundle: Bundle, cohort: Cohort, which: str = "") -> Chosen:
    """Choose subjects that did not train a network, where the cohort has such.

    Parameters
    ----------
    bundle : Bundle
        Whose manifest lists the subjects of its training.
    cohort : Cohort
        Who there is.
    which : str
        "held-out", "all", or empty: held-out subjects, or all where the cohort has none of these.

    Returns
    -------
    Chosen
        At least one.

    Raises
    ------
    CohortError
        If held-out subjects are asked for and the cohort has none.
    """
    training = bundle.manifest.training
    if training is None:
        return Chosen(
            cohort.subjects, f"all {len(cohort.subjects)} subjects; who trained {bundle.label} is not known"
        )
    held_out = tuple(subject for subject in cohort.subjects if subject in training.subjects_test)
    if held_out and which != "all":
        return Chosen(held_out, f"{len(held_out)} subjects that {bundle.label} never saw")
    if which == "held-out":
        raise CohortError(
            f"--subjects: the cohort has none of the {len(training.subjects_test)} subjects held out from "
            f"{bundle.label}; give the cohort it was made from, or --subjects all"
        )
    seen = len(set(cohort.subjects) & set(training.subjects_train))
    return Chosen(
        cohort.subjects,
        f"all {len(cohort.subjects)} subjects; identifiers of {seen} are among those that trained "
        f"{bundle.label}",
    )


def model_images(
    bundle: Bundle, cohort: Cohort, subjects: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Read brains as a bundle's network does.

    Parameters
    ----------
    bundle : Bundle
        Whose input space is meant.
    cohort : Cohort
        Brains at full resolution.
    subjects : tuple of str
        Whose; identifiers in the cohort.

    Returns
    -------
    iterator of (str, numpy.ndarray)
        Subject and volume, float32, with the shape of the bundle's input, model units.

    Raises
    ------
    CohortError
        As `into_model_space`, at once and not with the first image.
    """
    convert = into_model_space(bundle, cohort)
    rows = [cohort.subjects.index(subject) for subject in subjects]
    return ((subject, convert(cohort.brains[row])) for subject, row in zip(subjects, rows, strict=True))


def into_model_space(bundle: Bundle, cohort: Cohort) -> Convert:
    """Find out how a cohort's brains become a bundle's input.

    Parameters
    ----------
    bundle : Bundle
        Its affine and shape say which box of which grid it reads.
    cohort : Cohort
        On the same grid, or on one of half the voxel size in which the box lies at whole voxels. The latter
        is averaged over 2x2x2 voxels and normalized anew, which is how `training.whole` makes its images.

    Returns
    -------
    callable
        From a brain of the cohort to a float32 volume, rounded to float16 like the brains in training.

    Raises
    ------
    CohortError
        If the grids do not agree so, or the spaces or the normalizations differ.
    """
    space = bundle.manifest.input
    if space.normalization != NORMALIZATION:
        raise CohortError(
            f"{bundle.label}: takes {space.normalization.words}, a cohort is read with "
            f"{NORMALIZATION.quantile}; train the bundle with this version"
        )
    if UNKNOWN not in (space.space, cohort.space) and space.space != cohort.space:
        raise CohortError(
            f"space: the scans lie in {cohort.space}, but {bundle.label} reads {space.space}; "
            "register them to that template"
        )
    shape = np.array(space.shape)
    step = np.linalg.inv(cohort.affine) @ np.array(space.affine)
    if cohort.brains.shape[1:] == space.shape and np.allclose(step, np.eye(4), atol=1e-3):
        return lambda brain: brain.astype(np.float32)
    first = np.rint(step[:3, 3] - 0.5).astype(int)
    expected = np.diag([2.0, 2.0, 2.0, 1.0])
    expected[:3, 3] = first + 0.5
    inside = (first >= 0).all() and (first + 2 * shape <= cohort.brains.shape[1:]).all()
    if not np.allclose(step, expected, atol=1e-2) or not inside:
        raise CohortError(_unlike(bundle, cohort))
    box = tuple(slice(int(a), int(a + 2 * n)) for a, n in zip(first, shape, strict=True))
    return lambda brain: normalize(halve(brain[box])).astype(np.float16).astype(np.float32)


def _unlike(bundle: Bundle, cohort: Cohort) -> str:
    space = bundle.manifest.input

    def grid(shape: tuple[int, ...], affine: np.ndarray) -> str:
        sizes = " x ".join(f"{size:g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
        corner = ", ".join(f"{value:g}" for value in affine[:3, 3])
        return f"{shape} voxels of {sizes} mm from ({corner}) mm"

    return (
        f"grid: the scans have {grid(cohort.brains.shape[1:], cohort.affine)}, but {bundle.label} reads "
        f"{grid(space.shape, np.array(space.affine))}; resample the scans to that grid, or to one of half "
        "its voxel size that holds it"
    )
