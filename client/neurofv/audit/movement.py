"""How far changed images move a model's answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def movement(answers: np.ndarray, changed: np.ndarray, rows: Sequence[int]) -> tuple[float, float, int, int]:
    """Say how far answers have moved towards another class.

    Parameters
    ----------
    answers : numpy.ndarray
        Logits of all images, shape `(images, classes)`.
    changed : numpy.ndarray
        Logits of the changed twins of some, shape `(len(rows), classes)`.
    rows : sequence of int
        Of which.

    Returns
    -------
    tuple of float, float, int, int
        The largest median movement between two classes, in distances between them; the share of the images
        whose answer changed; the classes that it leaves and moves to.
    """
    own, before = answers.argmax(axis=1), answers[list(rows)]
    shown = own[list(rows)]
    best = (0.0, 0.0, 0, 0)
    for away in np.unique(shown):
        here = shown == away
        for towards in range(answers.shape[1]):
            if towards == away:
                continue
            margin = answers[:, towards] - answers[:, away]
            near, there = np.median(margin[own == away]), margin[own == towards]
            # Where no image is of the other class, it is taken to lie as far beyond the border.
            distance = np.median(there) - near if there.size else -2 * near
            steps = (changed - before)[here]
            effect = float(np.median(steps[:, towards] - steps[:, away]) / max(distance, 1e-9))
            if effect > best[0]:
                moved = float(np.mean(changed[here].argmax(axis=1) != away))
                best = (effect, moved, int(away), towards)
    return best
