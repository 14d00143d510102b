"""Folds for cross-validation: each subject is held out once."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedKFold

from training.cohort import CohortError, Split
from training.participants import Labels


def stratified_folds(subjects: tuple[str, ...], labels: Labels, folds: int, seed: int) -> list[Split]:
    """Divide subjects into folds that hold the classes in equal shares.

    Parameters
    ----------
    subjects : tuple of str
        Participant identifiers, in the order of the labels.
    labels : Labels
        Their classes.
    folds : int
        How many, at least 2.
    seed : int
        The same seed and subjects give the same folds.

    Returns
    -------
    list of Split
        One a fold; every subject is in `test` of exactly one.

    Raises
    ------
    CohortError
        If there are fewer than 2 folds, or a class has fewer members than there are folds.
    """
    if folds < 2:
        raise CohortError(f"--folds: {folds} is too few to hold anybody out; use at least 2")
    name, fewest = min(labels.counts().items(), key=lambda item: item[1])
    if fewest < folds:
        raise CohortError(
            f"--folds: class {name!r} of column {labels.column!r} has {fewest} members, too few for {folds} "
            f"folds; use at most {fewest}"
        )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    names = np.array(subjects)
    return [
        Split(train=tuple(names[train].tolist()), test=tuple(names[test].tolist()))
        for train, test in splitter.split(names, labels.codes)
    ]
