"""Brains of a cohort with the places where a lesion fits into them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.cohort import Cohort, CohortError
from training.lesions.shapes import REACH, centers


@dataclass(frozen=True)
class Brains:
    """Some subjects' brains, ready to paint.

    Attributes
    ----------
    volumes : numpy.ndarray
        float16, shape `(n, X, Y, Z)`, model units.
    sites : tuple of numpy.ndarray
        For each brain the voxels that a lesion may be centred on, as `training.lesions.shapes.centers` finds
        them.
    """

    volumes: np.ndarray
    sites: tuple[np.ndarray, ...]


def paintable(cohort: Cohort, subjects: tuple[str, ...]) -> Brains:
    """Take the brains of some subjects and find where lesions fit into them.

    Parameters
    ----------
    cohort : Cohort
        Where the brains are.
    subjects : tuple of str
        Identifiers in the cohort.

    Returns
    -------
    Brains
        In the order given.

    Raises
    ------
    CohortError
        If a brain has no room for a lesion.
    """
    volumes = cohort.volumes(subjects)
    sites = tuple(centers(volume > 0) for volume in volumes)
    for subject, found in zip(subjects, sites, strict=True):
        if not len(found):
            raise CohortError(
                f"{subject}: no place in the brain is {REACH:g} voxels from its edge, as a lesion needs; "
                "check the skull-stripping, or resample to 2 mm"
            )
    return Brains(volumes, sites)
