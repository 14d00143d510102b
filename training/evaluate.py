"""What a network achieves on whole brains of subjects it never saw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from rich.progress import track
from torch import nn

from models.manifest import Interval
from models.statistics import UnitStatistics, watched
from training.intervals import accuracy_interval

LogitLevel = Literal["0.05", "0.5", "0.95"]
LOGIT_LEVELS: tuple[LogitLevel, ...] = ("0.05", "0.5", "0.95")


@dataclass(frozen=True)
class Trials:
    """Answers of a network to whole volumes.

    Attributes
    ----------
    subjects, labels : numpy.ndarray
        Integer, shape `(n,)`: row of the brain and index into `classes`.
    logits : numpy.ndarray
        float32, shape `(n, len(classes))`.
    means, maxima : dict of numpy.ndarray
        For each watched layer the units' spatial means and maxima, float32, shape `(n, units)`.
    classes : tuple of str
        In the order of the logits.
    """

    subjects: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    means: dict[str, np.ndarray]
    maxima: dict[str, np.ndarray]
    classes: tuple[str, ...]

    def accuracy(self) -> Interval:
        """Share of images whose largest logit is that of their class."""
        return accuracy_interval(self._right(), self.subjects)

    def per_class(self) -> dict[str, Interval]:
        """Accuracy among the images of each class."""
        right = self._right()
        return {
            name: accuracy_interval(right[self.labels == index], self.subjects[self.labels == index])
            for index, name in enumerate(self.classes)
        }

    def confusion(self) -> np.ndarray:
        """Count images by true class (rows) and answer (columns)."""
        table = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(table, (self.labels, self.logits.argmax(axis=1)), 1)
        return table

    def logit_quantiles(self) -> dict[str, dict[LogitLevel, float]]:
        """Quantiles of each class's logit on the images of that class."""
        own = {name: self.logits[self.labels == index, index] for index, name in enumerate(self.classes)}
        return {
            name: {level: float(np.quantile(values, float(level))) for level in LOGIT_LEVELS}
            for name, values in own.items()
        }

    def _right(self) -> np.ndarray:
        return np.asarray(self.logits.argmax(axis=1) == self.labels)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images: Iterable[tuple[int, int, np.ndarray]],
    classes: tuple[str, ...],
    total: int,
    show: bool = False,
) -> Trials:
    """Run a network on whole volumes.

    Parameters
    ----------
    network : torch.nn.Module
        Takes `(1, 1, X, Y, Z)` and returns logits; it is put into evaluation mode.
    images : iterable of (int, int, numpy.ndarray)
        Row of the brain, index into `classes`, and the volume, float32, shape `(X, Y, Z)`, model units.
    classes : tuple of str
        In the order of the logits.
    total : int
        How many images there are, for the progress bar.
    show : bool
        Show a progress bar.

    Returns
    -------
    Trials
        One entry an image.
    """
    network.eval()
    rows: list[tuple[int, int]] = []
    logits: list[np.ndarray] = []
    units = UnitStatistics()
    with watched(network) as outputs:
        for row, label, volume in track(
            images, "held-out brains", total=total, disable=not show, transient=True
        ):
            rows.append((row, label))
            logits.append(network(torch.from_numpy(volume)[None, None])[0].numpy())
            units.add(outputs)
    subjects, labels = np.array(rows).T
    return Trials(
        subjects=subjects,
        labels=labels,
        logits=np.stack(logits),
        means={name: np.stack(values) for name, values in units.means.items()},
        maxima={name: np.stack(values) for name, values in units.maxima.items()},
        classes=classes,
    )
