"""What a network achieves on whole brains of subjects it never saw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from models.manifest import Interval
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


@contextmanager
def watched(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep the latest output of every convolution and linear layer; the hooks are removed at the end."""
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):

            def keep(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                outputs[name] = output

            handles.append(module.register_forward_hook(keep))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


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
    means: dict[str, list[np.ndarray]] = {}
    maxima: dict[str, list[np.ndarray]] = {}
    with watched(network) as outputs:
        for row, label, volume in track(
            images, "held-out brains", total=total, disable=not show, transient=True
        ):
            rows.append((row, label))
            logits.append(network(torch.from_numpy(volume)[None, None])[0].numpy())
            for name, output in outputs.items():
                flat = output[0].reshape(output.shape[1], -1)
                means.setdefault(name, []).append(flat.mean(dim=1).numpy())
                maxima.setdefault(name, []).append(flat.amax(dim=1).numpy())
    subjects, labels = np.array(rows).T
    return Trials(
        subjects=subjects,
        labels=labels,
        logits=np.stack(logits),
        means={name: np.stack(values) for name, values in means.items()},
        maxima={name: np.stack(values) for name, values in maxima.items()},
        classes=classes,
    )
