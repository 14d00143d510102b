"""How far a volume is from its start, in intensities and in a layer's activations.

Both are norms rather than squares, for the gradient of a square vanishes at
the start, and both are balanced (Hamblin et al. 2024, "Feature accentuation",
arXiv 2402.10039): a weight of 1 pulls as hard, at the first step that has a
pull, as the objective pushes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.fields import number, text
from engine.regularizer.base import Look, Regularizer


@dataclass(frozen=True)
class ImageDistance(Regularizer):
    """Root mean square departure from the start.

    Parameters
    ----------
    weight : float
        Length of its first gradient in relation to the objective's.
    """

    weight: float = number(1.0, minimum=0, doc="Length of its first gradient in relation to the objective's.")
    name: ClassVar[str] = "image_distance"
    balanced: ClassVar[bool] = True

    def penalty(self, look: Look) -> Tensor:
        """Return the root of mean (image - home)^2, `(batch,)`, model units; the loop balances it."""
        departure = (look.image - look.home).flatten(1)
        # torch's norm has the slope 0 at 0, where there is none: no guard is needed that would blunt the
        # norm next to the start.
        return torch.linalg.vector_norm(departure, dim=1) / departure.shape[1] ** 0.5


@dataclass(frozen=True)
class FeatureDistance(Regularizer):
    """Mean distance, over positions, between a layer's activations and those of the start.

    Both are read under the same transforms.

    Parameters
    ----------
    layer : str
        Name of the layer.
    weight : float
        Length of its first gradient in relation to the objective's.
    """

    layer: str = text("", doc="Name of the layer.")
    weight: float = number(1.0, minimum=0, doc="Length of its first gradient in relation to the objective's.")
    name: ClassVar[str] = "feature_distance"
    balanced: ClassVar[bool] = True
    reads_home: ClassVar[bool] = True

    @property
    def layers(self) -> frozenset[str]:
        """The layer."""
        return frozenset({self.layer})

    def penalty(self, look: Look) -> Tensor:
        """Return the mean over positions of the norm over channels, `(batch,)`; the loop balances it."""
        change = look.activations[self.layer] - look.home_activations[self.layer]
        lengths = torch.linalg.vector_norm(change, dim=1)
        return look.per_item(lengths.reshape(len(lengths), -1).mean(1))
