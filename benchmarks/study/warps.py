"""What a network wants of sizes: the logit of a class, drawn as a warp of a brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

import engine
from benchmarks.study.networks import KEPT
from benchmarks.study.parallel import mapped
from engine import Adam, Deformation, Sgd, Stopping, Transforms
from models import Bundle

Maps = dict[str, dict[str, np.ndarray]]
"""Log-Jacobians `(X, Y, Z)` by way and class."""
STEPS = 64
"""Most steps of a run; it ends where the logit is that of a real image of the class."""


@dataclass(frozen=True)
class Way:
    """One way of asking for a warp.

    Attributes
    ----------
    smoothness_mm : float
        FWHM of the Gaussian that smooths the velocity, mm.
    optimizer : Adam or Sgd
        How the velocity is found.
    modest : bool
        Whether the run ends where the logit reaches the 95th percentile of real images of the class.
    """

    smoothness_mm: float = 16.0
    optimizer: Adam | Sgd = field(default_factory=partial(Sgd, 3.0))
    modest: bool = True

    def warp(self, bundle: Bundle, class_name: str, begin: Tensor) -> np.ndarray:
        """Warp a brain until the network takes it for a member of a class.

        Parameters
        ----------
        bundle : Bundle
            A network of two classes.
        class_name : str
            Whose logit is driven, against the other's.
        begin : Tensor, (X, Y, Z)
            The brain, model units.

        Returns
        -------
        numpy.ndarray, (X, Y, Z)
            Natural logarithm of how much the brain's tissue has grown, at its place in the brain.
        """
        facts = bundle.manifest
        terms = [
            engine.Term(
                engine.ClassLogit(facts.classifier_layer, index),
                sense=engine.Sense.MAXIMIZE if name == class_name else engine.Sense.MINIMIZE,
            )
            for index, name in enumerate(facts.classes)
        ]
        terms.sort(key=lambda term: term.sense is engine.Sense.MINIMIZE)  # the first is watched
        level = facts.evaluation.logit_quantiles[class_name]["0.95"]
        spec = engine.Spec(
            grid=engine.Grid(facts.input.shape, facts.input.voxel_size_mm),
            objective=engine.Objective(tuple(terms)),
            intensity_range=facts.input.intensity_range,
            anatomy=engine.Anatomy(reference=begin),
            parameterization=Deformation(self.smoothness_mm),
            transforms=Transforms(jitter_mm=0, rotation_degrees=0, scale=0),
            optimizer=self.optimizer,
            steps=STEPS,
            stopping=Stopping(look_every=1, activation=level) if self.modest else Stopping(),
        )
        for event in engine.visualize(bundle.network(), spec):
            if isinstance(event, engine.Result):
                return np.log(event.extras["jacobian"].numpy().reshape(facts.input.shape))
        raise RuntimeError("the run ended without a result")


RECOMMENDED = "gradient steps, 16 mm"
WAYS: dict[str, Way] = {
    "Adam, 16 mm, to the end": Way(optimizer=Adam(0.2), modest=False),
    "Adam, 16 mm": Way(optimizer=Adam(0.02)),
    "gradient steps, 16 mm, to the end": Way(modest=False),
    "gradient steps, 10 mm": Way(10.0),
    RECOMMENDED: Way(),
    "gradient steps, 24 mm": Way(24.0),
}
"""The ladder. Adam moves all voxels alike, however little they matter; gradient steps move what matters."""


def reference(bundle: Bundle) -> Tensor:
    """Return a bundle's mean brain, model units, `(X, Y, Z)`."""
    image = torch.from_numpy(bundle.reference().get_fdata(dtype=np.float32))
    return image.clamp(*bundle.manifest.input.intensity_range)


def warps(
    bundle: Bundle, class_name: str, begins: Sequence[Tensor], way: Way = WAYS[RECOMMENDED]
) -> np.ndarray:
    """Warp several brains, each by itself, on all cores; return `(n, X, Y, Z)`."""
    label = f"{bundle.label}, {class_name}"
    return np.stack(mapped(partial(way.warp, bundle, class_name), list(begins), label))


def ladder(bundle: Bundle, ways: Mapping[str, Way] = WAYS) -> Maps:
    """Ask for every class in several ways, from the reference brain; return the log-Jacobians."""
    asked = [(name, label) for name in ways for label in bundle.manifest.classes]
    drawn = mapped(partial(_ask, bundle, dict(ways)), asked, f"{bundle.label}, ladder")
    maps: Maps = {name: {} for name in ways}
    for (name, label), warp in zip(asked, drawn, strict=True):
        maps[name][label] = warp
    return maps


def _ask(bundle: Bundle, ways: Mapping[str, Way], asked: tuple[str, str]) -> np.ndarray:
    name, label = asked
    return ways[name].warp(bundle, label, reference(bundle))


def keep(name: str, maps: Mapping[str, np.ndarray]) -> None:
    """Keep maps for the report's figures."""
    KEPT.mkdir(exist_ok=True)
    np.savez_compressed(KEPT / f"{name}.npz", **{key: warp.astype(np.float32) for key, warp in maps.items()})  # type: ignore[arg-type]


def kept(name: str) -> dict[str, np.ndarray]:
    """Return what was kept."""
    with np.load(KEPT / f"{name}.npz") as maps:
        return dict(maps)


def flat(maps: Maps, prefix: str = "") -> dict[str, np.ndarray]:
    """Name each map of a ladder by way and class."""
    return {f"{prefix}{name}/{label}": warp for name, own in maps.items() for label, warp in own.items()}
