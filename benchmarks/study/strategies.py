"""The ladder of regularization strategies: each is one way of asking for the same picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import engine
from benchmarks.peers.baselines import Run, b2
from benchmarks.study.networks import EDGE, Network
from engine import Adam, Fourier, Transforms, Voxels
from engine import regularizer as held_by

_STILL = Transforms(jitter_mm=0, rotation_degrees=0, scale=0)
_SHIFTED = Transforms(rotation_degrees=0, scale=0)
LOOK_EVERY = 8
"""Steps between two looks at a forming picture."""


@dataclass(frozen=True)
class Made:
    """Pictures of one run.

    Attributes
    ----------
    final : Tensor, (EDGE, EDGE, EDGE)
        The best of the run, model units.
    forming : tuple of Tensor
        The picture as it formed, earliest first.
    start : Tensor or float
        What it began with, model units.
    """

    final: torch.Tensor
    forming: tuple[torch.Tensor, ...]
    start: torch.Tensor | float


@dataclass(frozen=True)
class Strategy:
    """One way of asking.

    Attributes
    ----------
    choices : mapping
        Fields of `engine.Spec` that differ from the ladder's common ones.
    against_others : bool
        Whether the class's logit is set against the mean of the others.
    """

    choices: Mapping[str, Any] = field(default_factory=dict)
    against_others: bool = False

    def start(self, network: Network) -> torch.Tensor | float:
        """Return what the picture begins with, model units: the mean brain, as the regularizers let it be."""
        begin = network.reference
        for regularizer in self.choices.get("regularizers", ()):
            if isinstance(regularizer, held_by.IntensityClip):
                levels, values = (part.numpy() for part in network.anatomy.need("intensities", "clipping"))
                begin = begin.clamp(*np.interp([regularizer.low, regularizer.high], levels, values))
        return begin

    def make(self, network: Network, shape: str, seed: int) -> Made:
        """Draw the picture of a class."""
        common: dict[str, Any] = {"optimizer": Adam(0.05), "steps": 128, "snapshot_every": LOOK_EVERY}
        spec = engine.Spec(
            grid=network.grid,
            objective=network.objective(shape, self.against_others),
            intensity_range=network.bounds,
            anatomy=network.anatomy,
            seed=seed,
            **{**common, **self.choices},
        )
        forming = []
        for event in engine.visualize(network.module, spec):
            if isinstance(event, engine.Result):
                return Made(event.image, tuple(forming), self.start(network))
            if isinstance(event, engine.Snapshot):
                forming.append(event.image)
        raise RuntimeError("the run ended without a result")


@dataclass(frozen=True)
class Peer(Strategy):
    """B1, the strongest peer, as `benchmarks.peers` specifies it; its pictures are B2's."""

    decay: float = 1.5

    def start(self, network: Network) -> float:
        """Return middle grey."""
        return sum(network.bounds) / 2

    def make(self, network: Network, shape: str, seed: int) -> Made:
        """Draw the picture of a class; it is not looked at while it forms."""
        manifest = network.bundle.manifest
        run = Run(manifest.classes.index(shape), seed)
        edges = (EDGE,) * 3
        images = b2(network.module, manifest.classifier_layer, [run], edges, network.bounds, decay=self.decay)
        return Made(images[0], (), self.start(network))


_QUIET = (held_by.TotalVariation(30.0), held_by.L1(30.0))
PLAIN = "plausible tissue"
"""The strategy that the study recommends."""
LADDER: dict[str, Strategy] = {
    "voxels alone": Strategy({"parameterization": Voxels(), "transforms": _STILL, "regularizers": ()}),
    "+ L2": Strategy(
        {"parameterization": Voxels(), "transforms": _STILL, "regularizers": (held_by.L2(100.0),)}
    ),
    "+ L1": Strategy(
        {"parameterization": Voxels(), "transforms": _STILL, "regularizers": (held_by.L1(30.0),)}
    ),
    "+ total variation": Strategy(
        {"parameterization": Voxels(), "transforms": _STILL, "regularizers": (held_by.TotalVariation(30.0),)}
    ),
    "+ image blur": Strategy(
        {"parameterization": Voxels(), "transforms": _STILL, "regularizers": (held_by.GaussianBlur(3.0),)}
    ),
    "+ gradient blur": Strategy(
        {"parameterization": Voxels(), "transforms": _STILL, "regularizers": (held_by.GradientBlur(4.0),)}
    ),
    "+ jitter": Strategy({"parameterization": Voxels(), "transforms": _SHIFTED, "regularizers": ()}),
    "+ jitter, rotation, scale": Strategy({"parameterization": Voxels(), "regularizers": ()}),
    "Fourier, decay 1": Strategy(
        {"parameterization": Fourier(1.0), "transforms": _STILL, "regularizers": ()}
    ),
    "Fourier, decay 1.5": Strategy({"transforms": _STILL, "regularizers": ()}),
    "Fourier, decay 1.5, transforms": Strategy({"regularizers": ()}),
    "MACO, transforms": Strategy({"parameterization": engine.Maco(), "optimizer": engine.Nadam(0.1)}),
    "accentuation": Strategy({"regularizers": (held_by.ImageDistance(1.0),)}),
    "default of neurofv": Strategy({"optimizer": Adam(), "steps": 256}),
    "default, quieter ground": Strategy(
        {
            "regularizers": (
                held_by.TotalVariation(15.0),
                held_by.L1(10.0),
                held_by.SpectrumMatch(1.0),
            )
        }
    ),
    "quiet": Strategy({"regularizers": _QUIET}),
    "quiet, against the other classes": Strategy({"regularizers": _QUIET}, against_others=True),
    "smooth spectrum": Strategy(
        {"parameterization": Fourier(2.5), "regularizers": _QUIET, "transforms": _SHIFTED}
    ),
    PLAIN: Strategy(
        {
            "parameterization": Fourier(2.5),
            "regularizers": (
                held_by.TotalVariation(30.0),
                held_by.L1(150.0),
                held_by.IntensityClip(0.25, 1.0),
            ),
            "transforms": _SHIFTED,
        },
        against_others=True,
    ),
    "B1, decay 1.5": Peer(),
    "B1, decay 1": Peer(decay=1.0),
}
