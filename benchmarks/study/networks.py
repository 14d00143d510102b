"""The networks whose pictures are judged, and the box that the pictures are made in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import engine
from models import ZOO, Bundle, read_bundle

EDGE = 40
"""Edge of the box in voxels: a lesion with room to move."""
CONTROLS = Path(__file__).parent / ".controls"
"""Where `make study` trains the networks that have learned nothing; git knows nothing of them."""
KEPT = Path(__file__).parent / ".pictures"
"""Judged pictures, so that an interrupted study goes on, and what the report's figures show."""
PLACES = {
    "ordinary": ZOO / "lesion-shapes",
    "robust": ZOO / "lesion-shapes-robust",
    "shuffled": CONTROLS / "lesion-shapes-shuffled",
    "untrained": CONTROLS / "lesion-shapes-untrained",
    "growth": ZOO / "growth",
    "growth, shuffled": CONTROLS / "growth-shuffled",
    "growth, untrained": CONTROLS / "growth-untrained",
    "sex-rigid": ZOO / "sex-rigid",
    "sex-rigid, shuffled": CONTROLS / "sex-rigid-shuffled",
    "sex-affine": ZOO / "sex-affine",
    "sex-affine, shuffled": CONTROLS / "sex-affine-shuffled",
}


def read(name: str) -> Bundle:
    """Read one of the study's bundles, verified."""
    return read_bundle(PLACES[name] / "1")


@dataclass(frozen=True)
class Network:
    """A lesion classifier and the box in the middle of its reference brain."""

    name: str

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle, verified."""
        return read(self.name)

    @cached_property
    def module(self) -> nn.Module:
        """The network."""
        return self.bundle.network()

    @cached_property
    def grid(self) -> engine.Grid:
        """The grid of the box."""
        return engine.Grid((EDGE,) * 3, self.bundle.manifest.input.voxel_size_mm)

    @property
    def bounds(self) -> tuple[float, float]:
        """The intensity range, model units."""
        return self.bundle.manifest.input.intensity_range

    @cached_property
    def reference(self) -> Tensor:
        """The mean brain in the box, model units."""
        return self._cut(self.bundle.reference().get_fdata(dtype=np.float32)).clamp(*self.bounds)

    @cached_property
    def anatomy(self) -> engine.Anatomy:
        """What the bundle's prior knows of brains in the box."""
        prior = self.bundle.prior()
        return engine.Anatomy(
            reference=self.reference,
            magnitude=prior.magnitude(self.grid.fourier_shape),
            intensities=(torch.tensor(prior.quantile_levels), prior.intensity_quantiles),
        )

    def logit(self, shape: str) -> engine.Term:
        """Return the term of a class's logit."""
        index = self.bundle.manifest.classes.index(shape)
        unit = engine.ClassLogit(self.bundle.manifest.classifier_layer, index)
        return engine.Term(unit)

    def real_logit(self, shape: str, level: str = "0.95") -> float:
        """Return a quantile of a class's logit on held-out images of that class."""
        return self.bundle.manifest.evaluation.logit_quantiles[shape][level]  # type: ignore[index]

    def objective(self, shape: str, against_others: bool) -> engine.Objective:
        """Return a class's logit, plain or against the mean of the others."""
        terms = [self.logit(shape)]
        if against_others:
            others = [name for name in self.bundle.manifest.classes if name != shape]
            terms += [
                engine.Term(self.logit(name).unit, weight=1 / len(others), sense=engine.Sense.MINIMIZE)
                for name in others
            ]
        return engine.Objective(tuple(terms))

    def _cut(self, volume: np.ndarray) -> Tensor:
        inside = np.argwhere(self.bundle.prior().mask().numpy())
        first = ((inside.min(0) + inside.max(0)) // 2) - EDGE // 2
        return torch.from_numpy(volume[tuple(slice(n, n + EDGE) for n in first)].copy())
