"""What the volume pays for, and what it is held to."""

import importlib
import pkgutil
from collections.abc import Iterator

from engine.regularizer.base import Look, Regularizer
from engine.regularizer.distance import FeatureDistance, ImageDistance
from engine.regularizer.diversity import Diversity
from engine.regularizer.penalties import L1, L2, TotalVariation
from engine.regularizer.plausibility import ActivationCeiling, BrainMask, IntensityClip, NoRealActivations
from engine.regularizer.projections import Decay, GaussianBlur, GradientBlur
from engine.regularizer.spectrum import SpectrumMatch


def _found() -> Iterator[type[Regularizer]]:
    """Yield the regularizers in the modules of this package: a class that is put there is one."""
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Regularizer) and "name" in vars(kind):
                yield kind


REGULARIZERS: dict[str, type[Regularizer]] = {kind.name: kind for kind in _found()}

__all__ = [
    "L1",
    "L2",
    "REGULARIZERS",
    "ActivationCeiling",
    "BrainMask",
    "Decay",
    "Diversity",
    "FeatureDistance",
    "GaussianBlur",
    "GradientBlur",
    "ImageDistance",
    "IntensityClip",
    "Look",
    "NoRealActivations",
    "Regularizer",
    "SpectrumMatch",
    "TotalVariation",
]
