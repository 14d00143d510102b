"""What visualization needs to know of real brains, measured on the cohort."""

from __future__ import annotations

import nibabel
import numpy as np

from models import Prior
from models.statistics import measure_prior
from training.evaluate import Trials


def mean_brain(brains: np.ndarray, affine: np.ndarray) -> nibabel.Nifti1Image:
    """Average brains voxel by voxel.

    Parameters
    ----------
    brains : numpy.ndarray
        Training brains in model units, shape `(n, X, Y, Z)`.
    affine : numpy.ndarray
        Voxel to world in mm, shape `(4, 4)`.

    Returns
    -------
    nibabel.Nifti1Image
        float32, model units.
    """
    return nibabel.Nifti1Image(brains.mean(axis=0, dtype=np.float32), affine)


def brain_mask(brains: np.ndarray) -> np.ndarray:
    """Voxels that belong to the brain in at least half of the subjects; bool, shape `(X, Y, Z)`."""
    return np.asarray((brains > 0).mean(axis=0) >= 0.5)


def cohort_prior(brains: np.ndarray, trials: Trials) -> Prior:
    """Measure the statistics that a bundle carries.

    Parameters
    ----------
    brains : numpy.ndarray
        Training brains in model units, shape `(n, X, Y, Z)`.
    trials : Trials
        Held-out images of all classes, with the layers' activations.

    Returns
    -------
    Prior
        See `models.prior`. Layers whose output has no spatial axes have one statistic only.
    """
    values = brains.astype(np.float32)
    return measure_prior(
        values,
        np.concatenate([brain[brain > 0] for brain in values]),
        brain_mask(brains),
        brains.std(axis=0, dtype=np.float32),
        trials.means,
        trials.maxima,
    )
