"""How the brains of two groups differ in local volume: tensor-based morphometry (Ashburner, Friston 2000)."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric

from benchmarks.study.parallel import mapped

logging.getLogger("dipy").setLevel(logging.WARNING)

ITERATIONS = (20, 10)
"""Steps of the registration at half and full resolution of the grid."""


def log_jacobian(template: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Measure how much larger each place of a template is in a brain.

    The map between them is found by symmetric diffeomorphic registration (Avants et al. 2008), as DIPY has
    it, with the local cross-correlation as its measure.

    Parameters
    ----------
    template, brain : numpy.ndarray, (X, Y, Z)
        On one grid of cubic voxels.

    Returns
    -------
    numpy.ndarray, (X, Y, Z)
        Natural logarithm of the determinant of the map that carries the template's tissue to where the brain
        shows it, at the tissue's place in the template: above 0 where the brain is larger.
    """
    registration = SymmetricDiffeomorphicRegistration(
        CCMetric(3, sigma_diff=2.0, radius=3), level_iters=list(ITERATIONS)
    )
    # The field that leads from the static image's voxels to the moving one's.
    field = registration.optimize(template, brain).get_forward_field()
    slopes = np.stack([np.stack(np.gradient(field[..., axis]), -1) for axis in range(3)], -2)
    determinant = np.linalg.det(slopes + np.eye(3))
    return np.asarray(np.log(determinant.clip(0.05)), np.float32)


def log_jacobians(template: np.ndarray, brains: np.ndarray) -> np.ndarray:
    """Measure every brain, `(n, X, Y, Z)`."""
    return np.stack(mapped(partial(log_jacobian, template), list(brains), "registering brains"))
