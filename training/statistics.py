"""What visualization needs to know of real brains, measured on the cohort."""

from __future__ import annotations

import nibabel
import numpy as np
import torch

from models import Prior
from training.evaluate import Trials

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Levels of all quantiles in the prior."""


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
    total = np.zeros((*brains.shape[1:3], brains.shape[3] // 2 + 1))
    inside: list[np.ndarray] = []
    for brain in brains.astype(np.float32):
        total += np.abs(np.fft.rfftn(brain, norm="ortho"))
        inside.append(brain[brain > 0])
    flat = {name for name in trials.means if np.array_equal(trials.means[name], trials.maxima[name])}
    return Prior.pack(
        magnitude=torch.from_numpy(total / len(brains)),
        deviation=torch.from_numpy(brains.std(axis=0, dtype=np.float32)),
        mask=torch.from_numpy(brain_mask(brains)),
        intensity_quantiles=_quantiles(np.concatenate(inside)[:, None])[0],
        quantile_levels=LEVELS,
        activations={name: _quantiles(values) for name, values in trials.means.items()},
        maxima={name: _quantiles(values) for name, values in trials.maxima.items() if name not in flat},
    )


def _quantiles(values: np.ndarray) -> torch.Tensor:
    """Quantiles of each column, float32, shape `(columns, len(LEVELS))`."""
    return torch.from_numpy(np.quantile(values, LEVELS, axis=0).T.astype(np.float32))
