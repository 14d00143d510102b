"""Intervals of accuracies measured on few subjects, many images each."""

from __future__ import annotations

import numpy as np

from models.manifest import Interval

LEVEL = 0.95
RESAMPLES = 4000


def accuracy_interval(right: np.ndarray, subjects: np.ndarray, seed: int = 0) -> Interval:
    """Estimate an accuracy with an interval that knows that images of one subject are alike.

    Percentile bootstrap in two stages, subjects and then images within each (Davison and Hinkley 1997,
    section 3.8), so that more images of the same people do not feign certainty.

    Parameters
    ----------
    right : numpy.ndarray
        Boolean, one per image.
    subjects : numpy.ndarray
        Integer, the subject of each image.
    seed : int
        Seed of the resampling.

    Returns
    -------
    Interval
        Share of right answers, from 0 to 1, with the bootstrap's 95 % interval.
    """
    _, codes = np.unique(subjects, return_inverse=True)
    hits = np.bincount(codes, weights=right)
    counts = np.bincount(codes)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
    # Images drawn with replacement from one subject are right a binomial number of times.
    drawn_hits = rng.binomial(counts[drawn], (hits / counts)[drawn])
    means = drawn_hits.sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(
        estimate=float(hits.sum() / counts.sum()),
        low=float(low),
        high=float(high),
        level=LEVEL,
        n=len(right),
        method=f"percentile bootstrap over {len(counts)} subjects and their images",
    )
