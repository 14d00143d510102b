"""How well scores tell two classes apart, with intervals over subjects."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from models.manifest import Interval
from training.intervals import LEVEL, RESAMPLES


def fold_ranks(scores: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Replace scores by their relative ranks within each fold.

    Each fold has a network of its own, and their logits are not on one scale: only the order within a fold
    means something.

    Parameters
    ----------
    scores : numpy.ndarray
        Shape `(n,)`.
    folds : numpy.ndarray
        Integer, the fold of each, shape `(n,)`.

    Returns
    -------
    numpy.ndarray
        float64 between 0 and 1, ties at their mean rank, shape `(n,)`.
    """
    ranks = np.empty(len(scores))
    for fold in np.unique(folds):
        inside = folds == fold
        ranks[inside] = (rankdata(scores[inside]) - 0.5) / inside.sum()
    return ranks


def _wins(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each member of class 1 (rows) outscores each of class 0 (columns); ties count half."""
    high, low = scores[labels == 1][:, None], scores[labels == 0][None]
    return (high > low) + 0.5 * (high == low)


def auc_interval(scores: np.ndarray, labels: np.ndarray, method: str, seed: int = 0) -> Interval:
    """Estimate an AUC with its interval.

    Percentile bootstrap over subjects, each class for itself.

    Parameters
    ----------
    scores : numpy.ndarray
        One a subject, shape `(n,)`, on one scale: see `fold_ranks`.
    labels : numpy.ndarray
        0 or 1, both present, shape `(n,)`.
    method : str
        What the scores are, for readers.
    seed : int
        Seed of the resampling.

    Returns
    -------
    Interval
        With the bootstrap's 95 % interval.
    """
    wins = _wins(scores, labels)
    rng = np.random.default_rng(seed)
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in wins.shape)
    drawn = np.einsum("rp,pn,rn->r", rows, wins, columns, optimize=True) / wins.size
    return _interval(float(wins.mean()), drawn, len(scores), f"percentile bootstrap over subjects; {method}")


def balanced_accuracy_interval(answers: np.ndarray, labels: np.ndarray, seed: int = 0) -> Interval:
    """Average the accuracies of all classes, so that the larger class does not decide.

    Parameters
    ----------
    answers, labels : numpy.ndarray
        Integer classes, one a subject, shape `(n,)`.
    seed : int
        Seed of the resampling.

    Returns
    -------
    Interval
        With the 95 % interval of a percentile bootstrap over subjects, each class for itself.
    """
    rng = np.random.default_rng(seed)
    shares, drawn = [], []
    for label in np.unique(labels):
        right = (answers == labels)[labels == label]
        shares.append(right.mean())
        # Subjects drawn with replacement from a class are right a binomial number of times.
        drawn.append(rng.binomial(len(right), right.mean(), RESAMPLES) / len(right))
    method = "percentile bootstrap over subjects; mean of the classes' accuracies"
    return _interval(float(np.mean(shares)), np.mean(drawn, axis=0), len(labels), method)


def _interval(estimate: float, drawn: np.ndarray, n: int, method: str) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate=estimate, low=float(low), high=float(high), level=LEVEL, n=n, method=method)
